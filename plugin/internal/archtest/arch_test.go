// Package archtest holds the program to its table of rooms. It reads the source itself, so that what the
// Go tool has cached never answers for it.
package archtest

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/seaway-net/seaway/"
	inside = module + "plugin/internal/"
	root   = "../../.."
)

// rooms says which rooms each room may import, besides the standard library. "*" is every room that is
// not for tests.
var rooms = map[string]string{
	"fabric":            "",
	"kernel":            "fabric",
	"kernel/netns":      "",
	"enginehost":        "kernel/netns",
	"kernel/links":      "kernel kernel/netns enginehost fabric",
	"reconcile":         "kernel",
	"topology":          "fabric kernel",
	"pluginapi":         "",
	"ipam":              "fabric",
	"store":             "fabric",
	"store/local":       "store",
	"journal":           "fabric",
	"ipamdriver":        "fabric ipam journal store pluginapi",
	"netdriver":         "fabric journal store pluginapi kernel topology",
	"app":               "*",
	"archtest":          "",
	"kernel/kerneltest": "enginehost kernel/netns",
	"store/storetest":   "store",
	"drivertest":        "fabric ipamdriver journal kernel netdriver pluginapi store store/local",
}

// forTests are the rooms that only tests import.
var forTests = []string{"archtest", "kernel/kerneltest", "store/storetest", "drivertest"}

// libraries says which rooms may use each outside library, by the beginning of its import path. There are
// no others.
var libraries = map[string]string{
	"github.com/vishvananda/netlink":       "kernel/links",
	"github.com/vishvananda/netns":         "kernel/netns",
	"go.etcd.io/bbolt":                     "journal store/local",
	"github.com/docker/go-plugins-helpers": "pluginapi",
	"golang.org/x/sys/unix":                "kernel/netns kernel/links kernel/kerneltest enginehost pluginapi app",
	"pgregory.net/rapid":                   "store/storetest drivertest",
}

// source is one Go file.
type source struct {
	path    string // from the root of the module, with slashes
	isTest  bool
	pkg     string
	doc     string
	imports []string
}

// room is the file's room, "" if it is outside of all.
func (s source) room() string {
	dir, ok := strings.CutPrefix(path.Dir(s.path), "plugin/internal/")
	if !ok {
		return ""
	}
	return dir
}

// sources reads every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil // it went while we looked
			}
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if rel == "build" || entry.Name() == "testdata" || len(entry.Name()) > 2 && entry.Name()[0] == '.' {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := read(name)
		file.path = filepath.ToSlash(rel)
		all = append(all, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files below %s: this is not the module", len(all), root)
	}
	return all
}

func read(name string) (source, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	s := source{isTest: strings.HasSuffix(name, "_test.go"), pkg: file.Name.Name, doc: docOf(file)}
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, err
		}
		s.imports = append(s.imports, path)
	}
	return s, nil
}

func docOf(file *ast.File) string {
	if file.Doc == nil {
		return ""
	}
	return strings.TrimSpace(file.Doc.Text())
}

func TestEachRoomImportsWhatTheTableAllows(t *testing.T) {
	for _, s := range sources(t) {
		room := s.room()
		if room == "" || s.isTest {
			continue
		}
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s: room %s is not in the table", s.path, room)
			continue
		}
		for _, imported := range s.imports {
			other, ours := strings.CutPrefix(imported, inside)
			switch {
			case !ours:
			case slices.Contains(forTests, other) && !slices.Contains(forTests, room):
				t.Errorf("%s imports %s, which is for tests", s.path, other)
			case allowed != "*" && !slices.Contains(strings.Fields(allowed), other):
				t.Errorf("%s: room %s may not import room %s", s.path, room, other)
			}
		}
	}
}

func TestEachLibraryHasItsOwners(t *testing.T) {
	for _, s := range sources(t) {
		room := s.room()
		if room == "" || s.isTest {
			continue
		}
		for _, imported := range s.imports {
			if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") || strings.HasPrefix(imported, module) {
				continue
			}
			if !slices.Contains(strings.Fields(ownersOf(imported)), room) {
				t.Errorf("%s: room %s may not use %s (its owners: %q)", s.path, room, imported, ownersOf(imported))
			}
		}
	}
}

// ownersOf returns the rooms that may import a package of a library.
func ownersOf(imported string) string {
	for library, owners := range libraries {
		if imported == library || strings.HasPrefix(imported, library+"/") {
			return owners
		}
	}
	return ""
}

func TestTheTableNamesNoRoomThatIsNotThere(t *testing.T) {
	there := make(map[string]bool)
	for _, s := range sources(t) {
		there[s.room()] = true
	}
	for room, allowed := range rooms {
		for _, name := range append(strings.Fields(allowed), room) {
			if name != "*" && !there[name] {
				t.Errorf("the table names room %s, which is not there", name)
			}
		}
	}
}

func TestTheTableHasNoCircle(t *testing.T) {
	var walk func(room string, trail []string)
	walk = func(room string, trail []string) {
		if slices.Contains(trail, room) {
			t.Errorf("the rooms go round in a circle: %v", append(trail, room))
			return
		}
		for _, next := range strings.Fields(strings.ReplaceAll(rooms[room], "*", "")) {
			walk(next, append(trail, room))
		}
	}
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		walk(room, nil)
	}
}

func TestNothingOutsideThePluginImportsItsRooms(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasPrefix(s.path, "plugin/") {
			continue
		}
		for _, imported := range s.imports {
			if strings.HasPrefix(imported, module+"plugin/") {
				t.Errorf("%s imports %s", s.path, imported)
			}
		}
	}
}

func TestOnlyMainKnowsTheApp(t *testing.T) {
	for _, s := range sources(t) {
		if s.room() != "app" && slices.Contains(s.imports, inside+"app") && path.Dir(s.path) != "plugin" {
			t.Errorf("%s imports app", s.path)
		}
	}
}

func TestEachPackageSaysWhatItIs(t *testing.T) {
	docs := make(map[string][]string) // by directory: the files that have a package comment
	for _, s := range sources(t) {
		dir := path.Dir(s.path)
		if s.isTest && s.room() != "archtest" && !strings.HasPrefix(dir, "e2e") {
			continue
		}
		docs[dir] = append(docs[dir], "")
		if s.doc == "" {
			continue
		}
		docs[dir][len(docs[dir])-1] = s.path
		if s.pkg != "main" && !strings.HasPrefix(s.doc, "Package "+strings.TrimSuffix(s.pkg, "_test")) {
			t.Errorf("%s: the package's comment begins with %.40q", s.path, s.doc)
		}
	}
	for dir, files := range docs {
		files = slices.DeleteFunc(files, func(s string) bool { return s == "" })
		if len(files) != 1 {
			t.Errorf("%s has %d package comments, in %q; one is right", dir, len(files), files)
		}
	}
}
