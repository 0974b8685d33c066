package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/seaway-net/seaway/plugin/internal/store"
)

const (
	writers = 16
	keys    = 10
)

// oneWinner lets many writers create the same keys at once: each key has exactly one creator.
func oneWinner(s *suite) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	winners := make(map[string][]string)
	for w := range writers {
		wg.Go(func() {
			me := strconv.Itoa(w)
			for k := range keys {
				key := fmt.Sprint("key", (k+w)%keys)
				_, err := s.store.Commit(s.Context(), store.Txn{
					If:   []store.Condition{store.Absent(key)},
					Then: []store.Op{store.Put(key, []byte(me))},
				})
				if err == nil {
					mu.Lock()
					winners[key] = append(winners[key], me)
					mu.Unlock()
				} else if !errors.Is(err, store.ErrConflict) {
					s.Errorf("create %s: %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		key := fmt.Sprint("key", k)
		if got := winners[key]; len(got) != 1 || got[0] != string(s.get(key).Value) {
			s.Errorf("%s was created by %v and holds %q", key, got, s.get(key).Value)
		}
	}
}

// countTogether lets many writers add to one number, each on the condition that it is as they read it.
func countTogether(s *suite) {
	const each = 5
	s.commit(nil, store.Put("count", []byte("0")))
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				for {
					err := s.increment("count")
					if err == nil {
						break
					}
					if !errors.Is(err, store.ErrConflict) {
						s.Errorf("increment: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if got := string(s.get("count").Value); got != strconv.Itoa(writers*each) {
		s.Errorf("count = %s, want %d", got, writers*each)
	}
}

func (s *suite) increment(key string) error {
	entry, err := s.store.Get(s.Context(), key)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(entry.Value))
	if err != nil {
		return err
	}
	_, err = s.store.Commit(s.Context(), store.Txn{
		If:   []store.Condition{store.Unchanged(entry)},
		Then: []store.Op{store.Put(key, []byte(strconv.Itoa(n+1)))},
	})
	return err
}
