package controller

import (
	"errors"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (w *world) election() {
	short := terms{6 * time.Second, 4 * time.Second, 200 * time.Millisecond}
	stopA := w.start("a", short)
	w.awaitLeader("a")
	w.pool("decoys", "10.99.0.0/24")
	w.awaitState("decoys", v1alpha1.PoolIsActive)
	stopB := w.start("b", short)
	w.decoys("a")
	// The leader ends in order: the other one leads at once.
	if err := stopA(); err != nil {
		w.Errorf("a ends with %v", err)
	}
	w.awaitLeader("b")
	w.decoys("b")
	// The leader can't renew its Lease: it ends, and says so.
	stopC := w.start("c", short)
	w.await("the Lease to be stolen", func() (bool, any) {
		leases := w.admin.CoordinationV1().Leases(namespace)
		lease, err := leases.Get(w.Context(), LeaseName, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		thief := "a thief"
		lease.Spec.HolderIdentity = &thief
		_, err = leases.Update(w.Context(), lease, metav1.UpdateOptions{})
		return err == nil, err
	})
	w.awaitLeader("c")
	if err := stopB(); !errors.Is(err, ErrLeadershipLost) {
		w.Errorf("b ends with %v, want %v", err, ErrLeadershipLost)
	}
	w.decoys("c")
	if err := stopC(); err != nil {
		w.Errorf("c ends with %v", err)
	}
}

func (w *world) awaitLeader(name string) {
	w.Helper()
	w.await(name+" to lead", func() (bool, any) {
		lease, err := w.admin.CoordinationV1().Leases(namespace).Get(w.Context(), LeaseName, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return false, err
		}
		return *lease.Spec.HolderIdentity == name, *lease.Spec.HolderIdentity
	})
}
