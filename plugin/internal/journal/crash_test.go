package journal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

// crashEnv tells the test binary to be the process that is killed: it names the journal.
const crashEnv = "SEAWAY_TEST_CRASH_JOURNAL"

// crashKeep is how many steps stay in the journal; a step deletes an older one.
const crashKeep = 50

// crashChild updates the journal until it fails, and reports each step on its standard output after it
// returned.
// Each step is several records, so that half of one shows.
func crashChild(path string) error {
	j, err := Open(path)
	if err != nil {
		return err
	}
	fmt.Println("host", j.Host())
	for {
		var step uint64
		err := j.Update(func(tx *Tx) error {
			var err error
			if step, err = tx.NextSeq(); err != nil {
				return err
			}
			a := Address{Network: "n", Addr: addr(int(step)), State: Bound, Seq: step}
			id := fabric.EndpointID(fmt.Sprint(step))
			err = errors.Join(tx.Addresses().Put(a.Key(), a), tx.Endpoints().Put(id, Endpoint{Sandbox: string(id)}))
			if step > crashKeep {
				err = errors.Join(err, tx.Addresses().Delete(KeyOf("n", addr(int(step-crashKeep)))),
					tx.Endpoints().Delete(fabric.EndpointID(fmt.Sprint(step-crashKeep))))
			}
			return err
		})
		if err != nil {
			return err
		}
		fmt.Println("step", step)
	}
}

// TestKill kills a process that writes the journal, again and again: whatever it reported is there, and no
// step is there in part.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	var host fabric.HostID
	reported := uint64(0)
	for round := range rounds {
		after := time.Duration(rand.IntN(60_000)) * time.Microsecond
		if round < 3 {
			after /= 20 // while the journal is being made
		}
		newHost, step := crashRound(t, path, after)
		if host != "" && newHost != "" && newHost != host {
			t.Fatalf("round %d: Host %s, before %s", round, newHost, host)
		}
		host, reported = max(host, newHost), max(reported, step)
		reported = afterCrash(t, path, host, reported)
	}
	if reported < crashKeep {
		t.Logf("only %d steps in %d rounds: a slow disk", reported, rounds)
	}
}

// crashRound starts the child, kills it that long after it started to write, or to run if it is short, and
// returns what it reported last.
func crashRound(t *testing.T, path string, after time.Duration) (host fabric.HostID, step uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after+10*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch line := lines.Text(); {
		case len(line) > 5 && line[:5] == "host ":
			host = fabric.HostID(line[5:])
			kill.Reset(after)
		case len(line) > 5 && line[:5] == "step ":
			if _, err := fmt.Sscan(line[5:], &step); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("the child says: %s", line)
		}
	}
	_ = cmd.Wait() // killed
	return host, step
}

// afterCrash checks what a killed process left, and returns the last step in the journal.
func afterCrash(t *testing.T, path string, host fabric.HostID, reported uint64) uint64 {
	t.Helper()
	j := open(t, path)
	defer shut(t, j)
	if host != "" && j.Host() != host {
		t.Fatalf("Host %s, before the kill %s", j.Host(), host)
	}
	last := uint64(0)
	view(t, j, func(tx *Tx) error {
		var err error
		if last, _, err = metaTable[uint64](tx).Get(keySeq); err != nil {
			return err
		}
		if last < reported {
			t.Fatalf("step %d was reported, and the journal ends at %d", reported, last)
		}
		addresses, err := tx.Addresses().All()
		endpoints, endpointErr := tx.Endpoints().All()
		if want := min(last, crashKeep); uint64(len(addresses)) != want || uint64(len(endpoints)) != want {
			t.Fatalf("%d addresses and %d endpoints after step %d", len(addresses), len(endpoints), last)
		}
		for _, a := range addresses {
			if _, ok, _ := tx.Endpoints().Get(fabric.EndpointID(fmt.Sprint(a.Seq))); !ok || a.Seq+crashKeep <= last {
				t.Fatalf("step %d is there in part, or should be gone after %d", a.Seq, last)
			}
		}
		return errors.Join(err, endpointErr)
	})
	return last
}
