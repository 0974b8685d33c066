package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/seaway-net/seaway/plugin/internal/store"
)

// model walks the store beside a plain map, with reopening in between. All walks share one store, and each
// has a prefix of its own.
func model(s *suite) {
	walk := 0
	rapid.Check(s.T, func(t *rapid.T) {
		walk++
		m := &modelled{suite: s, prefix: fmt.Sprintf("walk%d/", walk), entries: make(map[string]store.Entry)}
		t.Repeat(map[string]func(*rapid.T){
			"commit": m.commit,
			"get":    m.get,
			"list":   m.list,
			"reopen": func(*rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "seldom") == 0 {
					s.reopen()
				}
			},
		})
		m.list(t)
	})
}

// modelled is one walk: what the store must hold below the prefix, and the greatest revision seen.
type modelled struct {
	*suite
	prefix  string
	entries map[string]store.Entry
	last    int64
}

func (m *modelled) key(t *rapid.T) string {
	return m.prefix + rapid.SampledFrom([]string{"a", "b", "b/1", "b/2", "c"}).Draw(t, "key")
}

// commit draws a transaction whose conditions hold more often than not, and applies it to both.
func (m *modelled) commit(t *rapid.T) {
	var txn store.Txn
	holds := true
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		c := store.Condition{Key: m.key(t)}
		c.Revision = m.entries[c.Key].Revision
		if rapid.IntRange(0, 4).Draw(t, "wrong") == 0 {
			c.Revision = rapid.Int64Range(0, m.last+1).Draw(t, "revision")
		}
		holds = holds && c.Revision == m.entries[c.Key].Revision
		txn.If = append(txn.If, c)
	}
	after := maps.Clone(m.entries)
	for _, key := range rapid.SliceOfNDistinct(rapid.Custom(m.key), 0, 4, rapid.ID).Draw(t, "changes") {
		if rapid.Bool().Draw(t, "delete") {
			txn.Then = append(txn.Then, store.Delete(key))
			delete(after, key)
			continue
		}
		value := rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "value")
		txn.Then = append(txn.Then, store.Put(key, value))
		after[key] = store.Entry{Key: key, Value: value} // its revision is the commit's answer
	}
	revision, err := m.store.Commit(m.Context(), txn)
	if !holds {
		if !errors.Is(err, store.ErrConflict) {
			t.Fatalf("Commit(%v) = %d, %v, want a conflict", txn, revision, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Commit(%v): %v", txn, err)
	}
	m.committed(t, after, revision)
}

// committed makes what a commit left the model, once its revision has passed.
func (m *modelled) committed(t *rapid.T, after map[string]store.Entry, revision int64) {
	changed := len(after) != len(m.entries)
	for key, entry := range after {
		if entry.Revision == 0 {
			changed = true
			entry.Revision = revision
			after[key] = entry
		}
	}
	if revision < m.last || changed && revision == m.last {
		t.Fatalf("revision %d after %d", revision, m.last)
	}
	m.entries, m.last = after, revision
}

func (m *modelled) get(t *rapid.T) {
	key := m.key(t)
	got, err := m.store.Get(m.Context(), key)
	want, ok := m.entries[key]
	switch {
	case !ok && !errors.Is(err, store.ErrNotFound):
		t.Fatalf("Get(%q) = %v, %v, want ErrNotFound", key, got, err)
	case ok && (err != nil || !equal(got, want)):
		t.Fatalf("Get(%q) = %v, %v, want %v", key, got, err, want)
	}
}

func (m *modelled) list(t *rapid.T) {
	prefix := m.prefix + rapid.SampledFrom([]string{"", "b", "b/", "d"}).Draw(t, "prefix")
	got, revision, err := m.store.List(m.Context(), prefix)
	if err != nil || revision < m.last {
		t.Fatalf("List(%q) at %d after %d: %v", prefix, revision, m.last, err)
	}
	var want []store.Entry
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		if strings.HasPrefix(key, prefix) {
			want = append(want, m.entries[key])
		}
	}
	if !slices.EqualFunc(got, want, equal) {
		t.Fatalf("List(%q) = %v, want %v", prefix, got, want)
	}
}

func equal(a, b store.Entry) bool {
	return a.Key == b.Key && a.Revision == b.Revision && slices.Equal(a.Value, b.Value)
}
