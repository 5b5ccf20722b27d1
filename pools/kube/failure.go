package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairway-network/fairway/pools/exchange"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

const (
	// writeTime bounds a write. The API server is told of it and begins nothing
	// later, so that it bounds how late a write without an answer can come.
	writeTime = 5 * time.Second
	// readTime bounds a read, which may be long.
	readTime = 30 * time.Second
)

// read makes one request that changes nothing.
func read(ctx context.Context, what string, r *rest.Request, into runtime.Object) error {
	return readWith(ctx, what, func(ctx context.Context) error { return r.MaxRetries(0).Do(ctx).Into(into) })
}

// readWith bounds a request that changes nothing, and says of its failure what it means.
func readWith(ctx context.Context, what string, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	err := request(ctx)
	if err == nil {
		return nil
	}
	if isGone(err) {
		return fmt.Errorf("%s: %w: %w", what, exchange.ErrGone, err)
	}
	return fmt.Errorf("%s: %w", what, hint(err))
}

// write makes one request that changes something, and never more: of a write
// that was made twice nobody could tell which of the two met the other.
func write(ctx context.Context, what string, r *rest.Request, into runtime.Object) error {
	var sent attempt
	err := r.MaxRetries(0).Timeout(writeTime).Do(sent.watched(ctx)).Into(into)
	if err == nil {
		return nil
	}
	if means := meaning(err, &sent); means != nil {
		return fmt.Errorf("%s: %w: %w", what, means, err)
	}
	return fmt.Errorf("%s: %w", what, hint(err))
}

// attempt knows whether something of a request may have left this machine.
type attempt struct{ left atomic.Bool }

// watched returns the context to make the request with.
func (a *attempt) watched(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { a.left.Store(true) },
	})
}

// meaning is which of the exchange's errors the failure of a write is. nil is a
// definite refusal: nothing was changed.
func meaning(err error, sent *attempt) error {
	answer := apierrors.APIStatus(nil)
	if !errors.As(err, &answer) {
		if !sent.left.Load() {
			return nil // nobody was reached
		}
		return exchange.ErrUnknown
	}
	switch code := answer.Status().Code; {
	case isGone(err):
		return exchange.ErrGone
	case apierrors.IsAlreadyExists(err):
		return exchange.ErrExists
	case apierrors.IsConflict(err):
		if otherUID(answer.Status()) {
			return exchange.ErrGone
		}
		return exchange.ErrConflict
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout:
		return nil
	}
	return exchange.ErrUnknown
}

// isGone says whether the API server has no object of that name. That it does
// not know the kind of object is something else.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.IsUnexpectedServerError(err)
}

// otherUID says whether a conflict is about the UID. The API server has nothing
// for it but two sentences, one for updates and one for removals.
func otherUID(s metav1.Status) bool {
	return strings.Contains(s.Message, "UID in precondition") || strings.Contains(s.Message, "UID in the precondition")
}

// hint adds the way out where the API server's sentence does not say it.
func hint(err error) error {
	if apierrors.IsNotFound(err) && apierrors.IsUnexpectedServerError(err) {
		return fmt.Errorf("the API server does not know this kind of object (kubectl apply -f deploy/crds): %w", err)
	}
	return err
}
