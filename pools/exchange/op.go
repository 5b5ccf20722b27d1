package exchange

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Kind is one of a store's methods.
type Kind uint8

const (
	List Kind = iota + 1
	Own
	Inside
	Look // Block
	Create
	Take
	Delete
	Requests
	LookRequest // Request
	Ask
	Answer // Grant
	Retract
	// A Custodian's.
	LookNode // Presence
	Vacate
	Discard
	Fences
	LookFence // Fence
	SetFence
	LiftFence
	RemoveFence
)

// String is the store's word for it.
func (k Kind) String() string {
	return [...]string{"?", "List", "Own", "Inside", "Block", "Create", "Take", "Delete", "Requests", "Request", "Ask", "Grant", "Retract", "Presence", "Vacate", "Discard", "Fences", "Fence", "SetFence", "LiftFence", "RemoveFence"}[k]
}

// Writes says whether a k changes the store.
func (k Kind) Writes() bool {
	switch k {
	case Create, Take, Delete, Ask, Answer, Retract, Vacate, Discard, SetFence, LiftFence, RemoveFence:
		return true
	}
	return false
}

// Op is one call of the store that a Node wants made. Its Result goes to
// Node.Done, once.
type Op struct {
	Kind    Kind
	Pool    string // of a List
	Block   Stored
	Request Request
	Fence   Fence

	done func(Result)
}

// String is the op as a person would write it down.
func (o *Op) String() string {
	switch o.Kind {
	case List:
		return fmt.Sprintf("List %s", o.Pool)
	case Inside, Look, Create, Take, Delete, Vacate, Discard:
		return fmt.Sprintf("%v %s", o.Kind, o.Block.Prefix)
	case LookRequest, Ask, Retract:
		return fmt.Sprintf("%v %s of %s", o.Kind, o.Request.Name, o.Request.Node)
	case Answer:
		return fmt.Sprintf("Grant %s to %s of %s", prefixesOf(o.Request.Grants), o.Request.Name, o.Request.Node)
	case LookFence, SetFence, LiftFence, RemoveFence:
		return fmt.Sprintf("%v of %s", o.Kind, o.Fence.Node)
	}
	return o.Kind.String()
}

// prefixesOf grants, as a person would write them down.
func prefixesOf(grants []Grant) string {
	words := make([]string, len(grants))
	for i, g := range grants {
		words[i] = g.Prefix.String()
	}
	return strings.Join(words, ", ")
}

// Result is what the store answered.
type Result struct {
	Block    Stored
	Blocks   []Stored
	Request  Request
	Requests []Request
	Presence Presence
	Fence    Fence
	Fences   []Fence
	Err      error
}

// Run makes the call.
func Run(ctx context.Context, s Store, o *Op) (r Result) {
	if c, ok := s.(Custodian); ok && o.Kind >= LookNode {
		if o.Kind >= Fences {
			return guard(ctx, c, o)
		}
		return free(ctx, c, o)
	}
	if e, ok := s.(Exchange); ok && o.Kind >= Requests {
		return ask(ctx, e, o)
	}
	switch o.Kind {
	case List:
		r.Blocks, r.Err = s.List(ctx, o.Pool)
	case Own:
		r.Blocks, r.Err = s.Own(ctx)
	case Inside:
		r.Blocks, r.Err = s.Inside(ctx, o.Block.Prefix)
	case Look:
		r.Block, r.Err = s.Block(ctx, o.Block.Prefix)
	case Create:
		r.Block, r.Err = s.Create(ctx, o.Block.Block)
	case Take:
		r.Block, r.Err = s.Take(ctx, o.Block)
	case Delete:
		r.Err = s.Delete(ctx, o.Block)
	default:
		r.Err = errors.New("this store has one node only: there is nobody to ask")
	}
	return r
}

func free(ctx context.Context, c Custodian, o *Op) (r Result) {
	switch o.Kind {
	case LookNode:
		r.Presence, r.Err = c.Presence(ctx, o.Block.Node, o.Block.Machine)
	case Vacate:
		r.Block, r.Err = c.Vacate(ctx, o.Block)
	case Discard:
		r.Err = c.Discard(ctx, o.Block)
	}
	return r
}

func ask(ctx context.Context, e Exchange, o *Op) (r Result) {
	switch o.Kind {
	case Requests:
		r.Requests, r.Err = e.Requests(ctx)
	case LookRequest:
		r.Request, r.Err = e.Request(ctx, o.Request.Name)
	case Ask:
		r.Request, r.Err = e.Ask(ctx, o.Request)
	case Answer:
		r.Request, r.Err = e.Grant(ctx, o.Request)
	case Retract:
		r.Err = e.Retract(ctx, o.Request)
	}
	return r
}
