package config_test

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the expected messages anew")
	flag.Parse()
	os.Exit(m.Run())
}
