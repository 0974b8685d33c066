// Package storetest is the conformance suite of package store: every implementation passes it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seaway-net/seaway/plugin/internal/store"
)

// OpenFunc opens the store that belongs to a test: an empty one at the first call, and at a later call with
// a test of the same name, after Close, that one again. The suite closes what it opens. Keys of others may
// be beside it, if List and Get do not show them; revisions may grow at any time.
type OpenFunc func(t *testing.T) store.Store

// Run tests a store.
func Run(t *testing.T, open OpenFunc) {
	tests := []struct {
		name string
		run  func(s *suite)
	}{
		{"PutGetDelete", putGetDelete},
		{"Conditions", conditions},
		{"ConflictChangesNothing", conflictChangesNothing},
		{"NothingToChange", nothingToChange},
		{"RevisionsNeverReturn", revisionsNeverReturn},
		{"List", list},
		{"Values", values},
		{"Invalid", invalid},
		{"Limit", limit},
		{"Cancelled", cancelled},
		{"Reopen", reopen},
		{"Closed", closed},
		{"OneWinner", oneWinner},
		{"CountTogether", countTogether},
		{"Model", model},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &suite{T: t, open: open, store: open(t)}
			t.Cleanup(func() { _ = s.store.Close() }) // also of one that the test closed: no harm
			tt.run(s)
		})
	}
}

// suite is one running test with its store.
type suite struct {
	*testing.T
	open  OpenFunc
	store store.Store
}

// commit makes changes that must succeed, and returns the revision.
func (s *suite) commit(conditions []store.Condition, ops ...store.Op) int64 {
	s.Helper()
	revision, err := s.store.Commit(s.Context(), store.Txn{If: conditions, Then: ops})
	if err != nil {
		s.Fatalf("Commit(%v, %v): %v", conditions, ops, err)
	}
	return revision
}

// refuse tries changes that must fail with the given error.
func (s *suite) refuse(want error, txn store.Txn) {
	s.Helper()
	if _, err := s.store.Commit(s.Context(), txn); !errors.Is(err, want) {
		s.Fatalf("Commit(%v) = %v, want %v", txn, err, want)
	}
}

// get returns a key that must be there.
func (s *suite) get(key string) store.Entry {
	s.Helper()
	entry, err := s.store.Get(s.Context(), key)
	if err != nil {
		s.Fatalf("Get(%q): %v", key, err)
	}
	return entry
}

// absent fails the test if a key is there.
func (s *suite) absent(key string) {
	s.Helper()
	if entry, err := s.store.Get(s.Context(), key); !errors.Is(err, store.ErrNotFound) {
		s.Fatalf("Get(%q) = %v, %v, want ErrNotFound", key, entry, err)
	}
}

// list returns the entries below a prefix as text, and the store's revision.
func (s *suite) list(prefix string) (string, int64) {
	s.Helper()
	entries, revision, err := s.store.List(s.Context(), prefix)
	if err != nil {
		s.Fatalf("List(%q): %v", prefix, err)
	}
	var words []string
	for _, e := range entries {
		if e.Revision < 1 || e.Revision > revision {
			s.Fatalf("List(%q): %q has revision %d, the store %d", prefix, e.Key, e.Revision, revision)
		}
		words = append(words, e.Key+"="+string(e.Value))
	}
	return strings.Join(words, " "), revision
}

func (s *suite) expectList(prefix, want string) {
	s.Helper()
	if got, _ := s.list(prefix); got != want {
		s.Fatalf("List(%q) = %q, want %q", prefix, got, want)
	}
}

func putGetDelete(s *suite) {
	s.absent("a")
	first := s.commit(nil, store.Put("a", []byte("1")), store.Put("b", []byte("2")))
	if got := s.get("a"); got.Key != "a" || string(got.Value) != "1" || got.Revision != first {
		s.Fatalf("Get = %+v after a commit at %d", got, first)
	}
	second := s.commit(nil, store.Put("a", []byte("3")), store.Delete("b"))
	if got := s.get("a"); string(got.Value) != "3" || got.Revision != second || second <= first {
		s.Fatalf("Get = %+v after commits at %d and %d", got, first, second)
	}
	s.absent("b")
	s.absent("")
}

func conditions(s *suite) {
	one := s.commit([]store.Condition{store.Absent("a")}, store.Put("a", []byte("1")))
	s.refuse(store.ErrConflict, store.Txn{If: []store.Condition{store.Absent("a")}})
	two := s.commit([]store.Condition{{Key: "a", Revision: one}}, store.Put("a", []byte("2")))
	for _, revision := range []int64{0, one, two - 1, two + 1} {
		s.refuse(store.ErrConflict, store.Txn{If: []store.Condition{{Key: "a", Revision: revision}}})
		s.refuse(store.ErrConflict, store.Txn{If: []store.Condition{
			{Key: "a", Revision: two}, store.Absent("b"), {Key: "a", Revision: revision},
		}})
	}
	s.refuse(store.ErrConflict, store.Txn{If: []store.Condition{{Key: "absent", Revision: two}}})
	// A condition may be about a key that does not change, and a change needs none.
	s.commit([]store.Condition{store.Unchanged(s.get("a")), store.Absent("c")}, store.Put("b", nil))
	if got := s.get("a").Revision; got != two {
		s.Fatalf("a has revision %d after a change of b, want %d", got, two)
	}
	s.commit([]store.Condition{store.Unchanged(s.get("a"))}, store.Delete("a"))
	s.absent("a")
}

func conflictChangesNothing(s *suite) {
	s.commit(nil, store.Put("a", []byte("1")), store.Put("b", []byte("2")))
	want, before := s.list("")
	s.refuse(store.ErrConflict, store.Txn{
		If:   []store.Condition{store.Unchanged(s.get("a")), store.Absent("b")},
		Then: []store.Op{store.Put("a", []byte("x")), store.Delete("b"), store.Put("c", []byte("y"))},
	})
	got, after := s.list("")
	if got != want || after < before {
		s.Fatalf("List = %q at %d, before %q at %d", got, after, want, before)
	}
}

func nothingToChange(s *suite) {
	revision := s.commit(nil, store.Put("a", nil))
	for _, ops := range [][]store.Op{nil, {store.Delete("b")}, {store.Delete("b"), store.Delete("c")}} {
		if got := s.commit([]store.Condition{store.Absent("b")}, ops...); got < revision {
			s.Fatalf("Commit(%v) = %d, want at least %d", ops, got, revision)
		}
		if got := s.get("a").Revision; got != revision {
			s.Fatalf("a has revision %d, want %d", got, revision)
		}
	}
}

func revisionsNeverReturn(s *suite) {
	seen, last := make(map[int64]bool), int64(0)
	for i := range 20 {
		if i%3 == 1 {
			last = max(last, s.commit(nil, store.Delete("a")))
			continue
		}
		revision := s.commit(nil, store.Put("a", []byte("always the same")))
		if seen[revision] || revision <= last || s.get("a").Revision != revision {
			s.Fatalf("revision %d after %d", revision, last)
		}
		seen[revision], last = true, revision
	}
}

func list(s *suite) {
	s.expectList("", "")
	var ops []store.Op
	for _, key := range []string{"b/2", "b", "a/1", "b/10", "b/1", "b0", "c", "b/", "b/\xff"} {
		ops = append(ops, store.Put(key, []byte(fmt.Sprint(len(key)))))
	}
	revision := s.commit(nil, ops...)
	s.expectList("b/", "b/=2 b/1=3 b/10=4 b/2=3 b/\xff=3")
	s.expectList("b/\xff", "b/\xff=3")
	s.expectList("b/1", "b/1=3 b/10=4")
	s.expectList("nothing", "")
	s.expectList("", "a/1=3 b=1 b/=2 b/1=3 b/10=4 b/2=3 b/\xff=3 b0=2 c=1")
	if _, got := s.list("nothing"); got < revision {
		s.Fatalf("an empty List is at %d, before the commit at %d", got, revision)
	}
}

func values(s *suite) {
	put := []byte("mine")
	s.commit(nil, store.Put("a", put), store.Put("empty", nil), store.Put("binary", []byte{0, 255, 0}))
	put[0] = 'X' // a value belongs to its caller again after the commit
	read := s.get("a").Value
	if string(read) != "mine" {
		s.Fatalf("a = %q", read)
	}
	read[0] = 'Y'
	if got := s.get("a").Value; string(got) != "mine" {
		s.Fatalf("a = %q after a reader changed its copy", got)
	}
	if got := s.get("empty"); len(got.Value) != 0 || got.Revision == 0 {
		s.Fatalf("empty = %+v", got)
	}
	if got := s.get("binary").Value; !slices.Equal(got, []byte{0, 255, 0}) {
		s.Fatalf("binary = %v", got)
	}
}

func invalid(s *suite) {
	s.refuse(store.ErrInvalid, store.Txn{Then: []store.Op{store.Put("", nil)}})
	s.refuse(store.ErrInvalid, store.Txn{Then: []store.Op{store.Put("a", nil), store.Delete("a")}})
	s.refuse(store.ErrInvalid, store.Txn{If: []store.Condition{{Key: "a", Revision: -1}}})
	s.absent("a")
}

func limit(s *suite) {
	var txn store.Txn
	for i := range store.MaxOps {
		key := fmt.Sprintf("key%03d", i)
		txn.If, txn.Then = append(txn.If, store.Absent(key)), append(txn.Then, store.Put(key, nil))
	}
	s.commit(txn.If, txn.Then...)
	if entries, _, err := s.store.List(s.Context(), "key"); err != nil || len(entries) != store.MaxOps {
		s.Fatalf("List = %d entries, %v", len(entries), err)
	}
	txn.Then = append(txn.Then, store.Put("one too many", nil))
	s.refuse(store.ErrInvalid, store.Txn{Then: txn.Then})
	s.absent("one too many")
}

func cancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	_, err := s.store.Commit(ctx, store.Txn{Then: []store.Op{store.Put("a", nil)}})
	_, getErr := s.store.Get(ctx, "a")
	_, _, listErr := s.store.List(ctx, "")
	for _, err := range []error{err, getErr, listErr} {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("error %v, want one that wraps context.Canceled", err)
		}
	}
	s.absent("a")
}

func reopen(s *suite) {
	first := s.commit(nil, store.Put("kept", []byte("1")), store.Put("gone", nil))
	last := s.commit(nil, store.Delete("gone"))
	want, _ := s.list("")
	s.reopen()
	if got, revision := s.list(""); got != want || revision < last {
		s.Fatalf("List = %q at %d, before %q at %d", got, revision, want, last)
	}
	if got := s.get("kept").Revision; got != first {
		s.Fatalf("kept has revision %d, before %d", got, first)
	}
	if got := s.commit(nil, store.Put("new", nil)); got <= last {
		s.Fatalf("revision %d after %d", got, last)
	}
}

// reopen closes the store and opens it again.
func (s *suite) reopen() {
	s.Helper()
	if err := s.store.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	s.store = s.open(s.T)
}

func closed(s *suite) {
	if err := s.store.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	_, err := s.store.Commit(s.Context(), store.Txn{Then: []store.Op{store.Put("a", nil)}})
	_, getErr := s.store.Get(s.Context(), "a")
	_, _, listErr := s.store.List(s.Context(), "")
	if err == nil || getErr == nil || listErr == nil {
		s.Fatalf("a closed store answers: %v, %v, %v", err, getErr, listErr)
	}
}
