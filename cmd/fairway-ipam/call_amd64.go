package main

// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl).
const (
	sysRead         = 0
	sysWrite        = 1
	sysClose        = 3
	sysNanosleep    = 35
	sysSocket       = 41
	sysConnect      = 42
	sysShutdown     = 48
	sysSetsockopt   = 54
	sysClockGettime = 228
	sysExitGroup    = 231
	sysOpenat       = 257
)
