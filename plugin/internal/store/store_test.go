package store

import (
	"errors"
	"fmt"
	"testing"
)

func TestValidate(t *testing.T) {
	many := make([]Op, MaxOps+1)
	conditions := make([]Condition, MaxOps+1)
	for i := range many {
		many[i] = Put(fmt.Sprint("key", i), nil)
		conditions[i] = Absent(fmt.Sprint("key", i))
	}
	tests := []struct {
		name    string
		txn     Txn
		invalid bool
	}{
		{"empty", Txn{}, false},
		{"full", Txn{If: conditions[1:], Then: many[1:]}, false},
		{"the same condition twice", Txn{If: []Condition{Absent("a"), Absent("a")}}, false},
		{"too many changes", Txn{Then: many}, true},
		{"too many conditions", Txn{If: conditions}, true},
		{"put twice", Txn{Then: []Op{Put("a", nil), Put("a", nil)}}, true},
		{"put and deleted", Txn{Then: []Op{Put("a", nil), Delete("a")}}, true},
		{"change without key", Txn{Then: []Op{Delete("")}}, true},
		{"condition without key", Txn{If: []Condition{Absent("")}}, true},
		{"negative revision", Txn{If: []Condition{{Key: "a", Revision: -1}}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.txn.Validate(); errors.Is(err, ErrInvalid) != tt.invalid {
				t.Fatalf("Validate() = %v", err)
			}
		})
	}
}

func TestOp(t *testing.T) {
	put, del := Put("a", []byte("1")), Delete("b")
	if put.Key() != "a" || string(put.Value()) != "1" || put.IsDelete() {
		t.Errorf("Put = %+v", put)
	}
	if del.Key() != "b" || del.Value() != nil || !del.IsDelete() {
		t.Errorf("Delete = %+v", del)
	}
	if got, want := Unchanged(Entry{Key: "a", Revision: 7}), (Condition{Key: "a", Revision: 7}); got != want {
		t.Errorf("Unchanged = %+v", got)
	}
}
