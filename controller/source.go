package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/fairway-network/fairway/api/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// listTime bounds the answer to one page of a list.
const listTime = 30 * time.Second

// listOptions ask for a page of the present state.
func listOptions(token string, limit int64) *metav1.ListOptions {
	return &metav1.ListOptions{Limit: limit, Continue: token}
}

// watchOptions ask for what changed since version, for some minutes: all
// watches of many clients then do not end at the same time.
func watchOptions(version string) *metav1.ListOptions {
	const least = 5 * 60
	seconds := least + rand.Int64N(least)
	return &metav1.ListOptions{Watch: true, ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds}
}

// typed is a source that decodes whole objects, a page at a time, and keeps of
// each what keep makes of it.
type typed[O metav1.Object, T any] struct {
	client   rest.Interface
	resource string
	list     func() runtime.Object
	keep     func(O) T
}

func (s typed[O, T]) page(ctx context.Context, token string, each func(T)) (version, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	const limit = 500
	list := s.list()
	if err := s.client.Get().Resource(s.resource).VersionedParams(listOptions(token, limit), metav1.ParameterCodec).Do(ctx).Into(list); err != nil {
		return "", "", err
	}
	about, err := apimeta.ListAccessor(list)
	if err != nil {
		return "", "", err
	}
	if about.GetResourceVersion() == "" {
		return "", "", errors.New("the answer is not a list of them")
	}
	err = apimeta.EachListItem(list, func(o runtime.Object) error {
		object, ok := o.(O)
		if !ok {
			return fmt.Errorf("a %T in the list", o)
		}
		each(s.keep(object))
		return nil
	})
	return about.GetResourceVersion(), about.GetContinue(), err
}

func (s typed[O, T]) version(ctx context.Context) (string, error) {
	return versionOf(ctx, s.client.Get().Resource(s.resource))
}

// versionOf asks for as little of a list as there can be, for the version that
// stands in its head.
func versionOf(ctx context.Context, r *rest.Request) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	r = r.VersionedParams(listOptions("", 1), metav1.ParameterCodec).SetHeader("Accept", justMeta)
	text, err := r.Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(text, &list); err != nil {
		return "", err
	}
	if list.ResourceVersion == "" {
		return "", errors.New("the answer is not a list")
	}
	return list.ResourceVersion, nil
}

// justMeta asks for lists without spec and status.
const justMeta = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

func (s typed[O, T]) watch(ctx context.Context, version string, each func(watch.EventType, T, string)) error {
	w, err := s.client.Get().Resource(s.resource).VersionedParams(watchOptions(version), metav1.ParameterCodec).Watch(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, more := <-w.ResultChan():
			if !more {
				return nil
			}
			if e.Type == watch.Error {
				return apierrors.FromObject(e.Object)
			}
			o, ok := e.Object.(O)
			if !ok {
				return fmt.Errorf("the watch shows a %T", e.Object)
			}
			var t T
			if e.Type != watch.Bookmark {
				t = s.keep(o)
			}
			each(e.Type, t, o.GetResourceVersion())
		}
	}
}

// blockSource is the source of blocks, of which there may be many. A list of whole
// objects takes the API server 45 µs for each of them; a table, in which no more
// stands than kubectl shows, 11. So a list shows blocks without UID and version,
// a change shows all. While a page is read here the API server makes the next one.
type blockSource struct {
	client rest.Interface
	log    *slog.Logger
	reader *blockReader // of the list that is being read
	ahead  *blockPage   // the next page of it, if that was asked for
	buffer []byte       // for the page after that
}

// blockPage is what the API server answers to the call for a page, once over is closed.
type blockPage struct {
	token string
	text  []byte
	err   error
	over  chan struct{}
}

// blocksAtOnce keeps a page near two megabytes. For each page the API server goes through
// all blocks that are left.
const blocksAtOnce = 16_000

// asTable asks for lists in the form that kubectl shows.
const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"

func (s *blockSource) page(ctx context.Context, token string, each func(placed)) (version, next string, err error) {
	if token == "" {
		s.reader, s.ahead = newBlockReader(), nil
	}
	page := s.ahead
	if page == nil || page.token != token {
		page = s.ask(ctx, token)
	}
	s.ahead = nil
	<-page.over
	if page.err != nil {
		return "", "", page.err
	}
	if next := nextOf(page.text); next != "" {
		s.ahead = s.ask(ctx, next)
	}
	version, next, err = s.reader.table(page.text, each, s.unreadable)
	s.buffer = page.text[:0]
	if next == "" {
		s.reader, s.ahead, s.buffer = nil, nil, nil
	}
	return version, next, err
}

// ask calls for a page. It is over after listTime at the latest, or when ctx ends.
func (s *blockSource) ask(ctx context.Context, token string) *blockPage {
	a := &blockPage{token: token, text: s.buffer, over: make(chan struct{})}
	s.buffer = nil
	go func() {
		defer close(a.over)
		ctx, cancel := context.WithTimeout(ctx, listTime)
		defer cancel()
		request := s.request(listOptions(token, blocksAtOnce)).Param("includeObject", string(metav1.IncludeNone))
		body, err := request.SetHeader("Accept", asTable).Stream(ctx)
		if err != nil {
			a.err = err
			return
		}
		defer body.Close()
		a.err = a.fill(body)
	}()
	return a
}

func (s *blockSource) unreadable(err error) {
	s.log.Warn("a block that can't be read is left out", "err", err)
}

// fill reads all of r into the text.
func (a *blockPage) fill(r io.Reader) error {
	for {
		if len(a.text) == cap(a.text) {
			a.text = append(a.text, make([]byte, 1<<20)...)[:len(a.text)]
		}
		n, err := r.Read(a.text[len(a.text):cap(a.text)])
		a.text = a.text[:len(a.text)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *blockSource) request(o *metav1.ListOptions) *rest.Request {
	return s.client.Get().Resource(v1alpha1.AddressBlocks).VersionedParams(o, metav1.ParameterCodec)
}

func (s *blockSource) version(ctx context.Context) (string, error) {
	return versionOf(ctx, s.client.Get().Resource(v1alpha1.AddressBlocks))
}

func (s *blockSource) watch(ctx context.Context, version string, each func(watch.EventType, placed, string)) error {
	body, err := s.request(watchOptions(version)).SetHeader("Accept", runtime.ContentTypeJSON).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	for events := json.NewDecoder(body); ; {
		var e struct {
			Type   watch.EventType
			Object json.RawMessage
		}
		if err := events.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.event(e.Type, e.Object, each); err != nil {
			return err
		}
	}
}

func (s *blockSource) event(change watch.EventType, object []byte, each func(watch.EventType, placed, string)) error {
	var about struct {
		Metadata struct{ ResourceVersion string }
		Message  string
		Code     int
	}
	if change == watch.Error || change == watch.Bookmark {
		if err := json.Unmarshal(object, &about); err != nil {
			return err
		}
	}
	switch change {
	case watch.Error:
		err := fmt.Errorf("watch: %s", about.Message)
		if about.Code == 410 {
			err = fmt.Errorf("%w: %w", errExpired, err)
		}
		return err
	case watch.Bookmark:
		each(change, placed{}, about.Metadata.ResourceVersion)
		return nil
	}
	b, err := newBlockReader().one(object)
	if err != nil {
		s.unreadable(err)
		return nil
	}
	each(change, b, fmt.Sprint(b.version))
	return nil
}
