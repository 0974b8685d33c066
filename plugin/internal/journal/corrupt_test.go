package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// bigJournal returns the bytes of a journal with branches, long values, inline buckets and free pages, and
// what it holds.
func bigJournal(t *testing.T) (whole []byte, dump string) {
	t.Helper()
	path := filepath.Join(memoryDir(t), "journal")
	j := open(t, path)
	for batch := range 3 {
		update(t, j, func(tx *Tx) error {
			for i := range 150 {
				a := Address{Network: "n", Addr: addr(batch*100 + i), State: Bound, Seq: uint64(batch)}
				if err := tx.Addresses().Put(a.Key(), a); err != nil {
					return err
				}
			}
			p := Pool{ID: fabric.PoolID(fmt.Sprint(batch)), Scope: strings.Repeat("long", 2500)}
			if err := tx.Pools().Put(p.ID, p); err != nil {
				return err
			}
			_, err := tx.NextSeq()
			return err
		})
	}
	update(t, j, func(tx *Tx) error { return tx.Pools().Delete("1") })
	dump = dumpOf(t, j)
	shut(t, j)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return whole, dump
}

// dumpOf returns all that a journal holds, as text.
func dumpOf(t testing.TB, j *Journal) string {
	t.Helper()
	var out strings.Builder
	view(t, j, func(tx *Tx) error {
		return tx.bolt.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			return bucket.ForEach(func(key, raw []byte) error {
				if !json.Valid(raw) {
					return fmt.Errorf("%s %s holds %q", name, key, raw)
				}
				_, err := fmt.Fprintf(&out, "%s %s %s\n", name, key, raw)
				return err
			})
		})
	})
	return out.String()
}

// tryImage opens a journal of these bytes. It must be whole, or be set aside as it was with an empty one in
// its place; either way it must work from then on. It reports which.
func tryImage(t *testing.T, path string, image []byte, whole string) (recovered bool) {
	t.Helper()
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := Open(path)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = j.Close() }) // also after churn closed it: no harm
	moved := j.Recovered()
	if moved != "" {
		if kept, err := os.ReadFile(moved); err != nil || string(kept) != string(image) {
			t.Fatalf("the damaged file was not kept as it was (%v)", err)
		}
		if err := os.Remove(moved); err != nil {
			t.Fatal(err)
		}
		whole = ""
	}
	if got := dumpOf(t, j); whole != "" && got != whole || moved != "" && strings.Count(got, "\n") != 2 {
		t.Fatalf("recovered %q and holds\n%s", moved, got)
	}
	churn(t, path, j)
	return moved != ""
}

// churn changes a journal and opens it again: damage that has not shown so far would spread.
func churn(t *testing.T, path string, j *Journal) {
	t.Helper()
	for step := range 3 {
		update(t, j, func(tx *Tx) error {
			for i := range 30 {
				if err := tx.Addresses().Delete(KeyOf("n", addr(step*50+i))); err != nil {
					return err
				}
				e := Endpoint{Sandbox: strings.Repeat("x", 100*step)}
				if err := tx.Endpoints().Put(fabric.EndpointID(fmt.Sprint(i)), e); err != nil {
					return err
				}
			}
			return nil
		})
	}
	want := dumpOf(t, j)
	shut(t, j)
	j = open(t, path)
	if got := dumpOf(t, j); got != want {
		t.Fatalf("holds\n%s\nand before it was closed\n%s", got, want)
	}
	shut(t, j)
}

func TestDamagedFiles(t *testing.T) {
	intact, whole := bigJournal(t)
	page := os.Getpagesize()
	newer := 0 // the newer meta page
	if first, err := readMeta(intact, 0); err != nil {
		t.Fatal(err)
	} else if second, err := readMeta(intact, uint64(page)); err != nil {
		t.Fatal(err)
	} else if second.tx > first.tx {
		newer = page
	}
	root := func(b []byte) []byte { // from the root page on
		m, _ := readMeta(b, uint64(newer))
		return b[int(m.root)*page:]
	}
	branch := func(b []byte) []byte { // from a branch page in use on
		m, _ := readMeta(b, uint64(newer))
		im := &image{data: b, pageSize: m.pageSize, pages: m.pages, seen: make(map[uint64]bool)}
		if err := im.checkPage(m.root, span{}, true); err != nil {
			t.Fatal(err)
		}
		for id := range im.seen {
			if at := b[int(id)*page:]; at[8] == flagBranch {
				return at
			}
		}
		t.Fatal("there is no branch")
		return nil
	}
	tests := map[string]func(b []byte) []byte{
		"empty":               func([]byte) []byte { return nil },
		"one byte":            func(b []byte) []byte { return b[:1] },
		"half a meta page":    func(b []byte) []byte { return b[:40] },
		"one page":            func(b []byte) []byte { return b[:page] },
		"two pages":           func(b []byte) []byte { return b[:2*page] },
		"half":                func(b []byte) []byte { return b[:len(b)/2] },
		"zero":                func(b []byte) []byte { clear(b); return b },
		"text":                func([]byte) []byte { return []byte(strings.Repeat("no journal\n", 4000)) },
		"zero first meta":     func(b []byte) []byte { clear(b[:page]); return b },
		"zero second meta":    func(b []byte) []byte { clear(b[page : 2*page]); return b },
		"older meta twice":    func(b []byte) []byte { copy(b[newer:], b[page-newer:][:page]); return b },
		"bad magic":           func(b []byte) []byte { b[headerSize]++; return b },
		"newer meta flipped":  func(b []byte) []byte { b[newer+headerSize+16] ^= 1; return b },
		"root is a free list": func(b []byte) []byte { root(b)[8] = 0x10; return b },
		"root is a branch":    func(b []byte) []byte { root(b)[8] = flagBranch; return b },
		"root is empty":       func(b []byte) []byte { root(b)[10] = 0; return b },
		"root has no end":     func(b []byte) []byte { root(b)[10], root(b)[11] = 255, 255; return b },
		"root overflows":      func(b []byte) []byte { root(b)[15] = 255; return b },
		"branch below itself": func(b []byte) []byte { at := branch(b); copy(at[headerSize+8:][:8], at); return b },
		"branch key changed": func(b []byte) []byte {
			at := branch(b)[headerSize+elementSize:] // its second element
			at[binary.NativeEndian.Uint32(at)+binary.NativeEndian.Uint32(at[4:])-1]++
			return b
		},
		"a bit of an address": func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), `"seq":2`, `"seq":3`))
		},
	}
	path := filepath.Join(memoryDir(t), "journal")
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			if !tryImage(t, path, damage(append([]byte(nil), intact...)), whole) {
				t.Fatal("the damage was not noticed")
			}
		})
	}
	if tryImage(t, path, intact, whole) {
		t.Fatal("the undamaged journal was set aside")
	}
}

// TestTruncatedAnywhere cuts the file at every page: what is left is whole or set aside.
func TestTruncatedAnywhere(t *testing.T) {
	image, whole := bigJournal(t)
	path := filepath.Join(memoryDir(t), "journal")
	for cut := 0; cut < len(image); cut += os.Getpagesize() {
		tryImage(t, path, image[:cut], whole)
	}
}

// TestFlippedBits flips random bits, most of them where pages describe themselves, and zeroes pages.
func TestFlippedBits(t *testing.T) {
	image, whole := bigJournal(t)
	page := os.Getpagesize()
	flips := 250
	if testing.Short() {
		flips = 50
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(memoryDir(t), "journal")
	recovered := 0
	for i := range flips {
		damaged := append([]byte(nil), image...)
		at := rng.IntN(len(image)/page) * page
		switch i % 4 {
		case 0:
			clear(damaged[at : at+page])
		case 1:
			damaged[at+rng.IntN(page)] ^= 1 << rng.IntN(8)
		default:
			damaged[at+rng.IntN(4*headerSize)] ^= 1 << rng.IntN(8)
		}
		t.Run(fmt.Sprintf("seed %d flip %d page %d", seed, i, at/page), func(t *testing.T) {
			if tryImage(t, path, damaged, whole) {
				recovered++
			}
		})
	}
	t.Logf("%d of %d damaged files were set aside, the others were whole", recovered, flips)
}

// TestCheckAcceptsWhatIsWritten grows and shrinks a tree of three levels at random. All that bbolt writes
// must pass: a check that is too strict would throw away good journals.
func TestCheckAcceptsWhatIsWritten(t *testing.T) {
	path := filepath.Join(memoryDir(t), "journal")
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	j := open(t, path)
	for round := range 40 {
		grow := round%20 < 12
		update(t, j, func(tx *Tx) error {
			start := rng.IntN(6000)
			for i := range 800 {
				a := Address{Network: "n", Addr: addr((start + i*(1+round%3)) % 6000), Token: strings.Repeat("t", rng.IntN(60))}
				if !grow || rng.IntN(4) == 0 {
					if err := tx.Addresses().Delete(a.Key()); err != nil {
						return err
					}
				} else if err := tx.Addresses().Put(a.Key(), a); err != nil {
					return err
				}
			}
			return nil
		})
		if err := checkFile(path); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
	}
	want := dumpOf(t, j)
	shut(t, j)
	if got := dumpOf(t, open(t, path)); got != want {
		t.Fatalf("seed %d: the journal changed while it was closed", seed)
	}
}

// FuzzCheckPage looks for a page's bytes that the check itself stumbles over.
func FuzzCheckPage(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 2*minPageSize))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = checkImage(data)
		im := &image{data: data, pageSize: headerSize, pages: uint64(len(data) / headerSize), seen: make(map[uint64]bool)}
		_ = im.checkPage(2, span{}, true)
	})
}
