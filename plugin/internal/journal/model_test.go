package journal

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// modelled is a journal beside plain maps.
type modelled struct {
	*testing.T
	path      string
	journal   *Journal
	addresses map[AddressKey]Address
	pools     map[string]Pool
	seq       uint64
}

// TestModel walks the journal beside plain maps: updates of several changes, some of which fail, with
// reopening at random points.
func TestModel(t *testing.T) {
	walk, dir := 0, memoryDir(t)
	rapid.Check(t, func(rt *rapid.T) {
		walk++
		m := &modelled{
			T: t, path: filepath.Join(dir, fmt.Sprint(walk)),
			addresses: make(map[AddressKey]Address), pools: make(map[string]Pool),
		}
		m.journal = open(t, m.path)
		rt.Repeat(map[string]func(*rapid.T){
			"update": m.update,
			"reopen": func(*rapid.T) {
				host := m.journal.Host()
				shut(t, m.journal)
				if m.journal = open(t, m.path); m.journal.Host() != host {
					rt.Fatal("another Host")
				}
			},
			"": m.check,
		})
		shut(t, m.journal)
	})
}

// update makes some changes in one transaction, which may fail at its end.
func (m *modelled) update(t *rapid.T) {
	addresses, pools, seq := maps.Clone(m.addresses), maps.Clone(m.pools), m.seq
	var failure error
	if rapid.IntRange(0, 3).Draw(t, "fail") == 0 {
		failure = errors.New("on purpose")
	}
	err := m.journal.Update(func(tx *Tx) error {
		for range rapid.IntRange(0, 8).Draw(t, "changes") {
			a := Address{
				Network: "n", Addr: addr(rapid.IntRange(0, 40).Draw(t, "address")),
				State: rapid.SampledFrom([]State{Intent, Bound, Owned, Releasing}).Draw(t, "state"),
				Token: strings.Repeat("t", rapid.SampledFrom([]int{0, 10, 3000}).Draw(t, "size")),
			}
			var err error
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				delete(addresses, a.Key())
				err = tx.Addresses().Delete(a.Key())
			case 1:
				pool := Pool{Scope: string(a.State)}
				pools[string(a.State)] = pool
				err = Table[string, Pool]{tx, "pools"}.Put(string(a.State), pool)
			case 2:
				seq++
				if a.Seq, err = tx.NextSeq(); a.Seq != seq {
					t.Fatalf("NextSeq = %d, want %d", a.Seq, seq)
				}
				fallthrough
			default:
				addresses[a.Key()] = a
				err = errors.Join(err, tx.Addresses().Put(a.Key(), a))
			}
			if err != nil {
				return err
			}
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatalf("Update = %v, want %v", err, failure)
	}
	if failure == nil {
		m.addresses, m.pools, m.seq = addresses, pools, seq
	}
}

func (m *modelled) check(t *rapid.T) {
	err := m.journal.View(func(tx *Tx) error {
		all, err := tx.AddressesOf("n")
		if err != nil {
			return err
		}
		var want []Address
		for _, key := range slices.Sorted(maps.Keys(m.addresses)) {
			want = append(want, m.addresses[key])
		}
		if !slices.Equal(all, want) {
			t.Fatalf("addresses %v, want %v", all, want)
		}
		for key, a := range m.addresses {
			if got, ok, getErr := tx.Addresses().Get(key); getErr != nil || !ok || got != a {
				t.Fatalf("address %s = %v, %v, %v", key, got, ok, getErr)
			}
		}
		pools, err := tx.Pools().All()
		if len(pools) != len(m.pools) {
			t.Fatalf("pools %v, want %v", pools, m.pools)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
