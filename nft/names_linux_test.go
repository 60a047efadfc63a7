package nft

import (
	"context"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec"
)

// The kernel takes names of MaxName bytes for every kind of object and wherever
// one is referred to, and no longer ones. Which bytes they are is no matter to
// it, but see MaxName.
func TestNames(t *testing.T) {
	k := newKernel(t)
	table := func(name string) Table {
		return Merge(Table{
			Family: INet, Name: TableName,
			Chains: []Chain{{Name: "r" + name}, {Name: "c" + name, Rules: []Rule{
				NewRule("", Saddr(spec.IPv4).In("s"+name), Do(CounterRef{"h" + name}, Jump("r"+name))),
				NewRule("", Saddr(spec.IPv4).VMap("m"+name)),
			}}},
			Sets: []Set{
				{Name: "s" + name, Key: []Type{TypeIPv4Addr}},
				{Name: "m" + name, Key: []Type{TypeIPv4Addr}, Verdicts: true, Elements: []Element{Data("\x0a\x00\x00\x01").Maps(Goto("r" + name))}},
			},
			Counters: []string{"h" + name},
		})
	}
	k.apply(table(strings.Repeat("x", MaxName-1)))
	for _, odd := range []string{" ", "-", ".", "/", "\"", "\n", "\xff", "@", "é"} {
		k.apply(table(odd))
	}
	k.apply()
	long := strings.Repeat("x", MaxName+1)
	for what, over := range map[string]Table{
		"chain":   {Chains: []Chain{{Name: long}}},
		"set":     {Sets: []Set{{Name: long, Key: []Type{TypeIPv4Addr}}}},
		"counter": {Counters: []string{long}},
	} {
		over.Family, over.Name = INet, TableName
		observed, gen := k.read()
		if _, err := k.w.Commit(context.Background(), Diff(Ruleset{over}, observed), gen); err == nil {
			t.Errorf("the name of a %s was taken", what)
		}
	}
	observed, gen := k.read()
	pattern := Table{Family: INet, Name: TableName, Sets: []Set{{Name: "s%d", Key: []Type{TypeIPv4Addr}}}}
	if _, err := k.w.Commit(context.Background(), Diff(Ruleset{pattern}, observed), gen); err != nil {
		t.Fatal(err)
	}
	if observed, _ = k.read(); len(observed) != 1 || len(observed[0].Sets) != 1 || observed[0].Sets[0].Name != "s0" {
		t.Errorf("a set with a pattern for a name became\n%s", observed)
	}
}

// What the kernel would refuse, or take for something else, is an error that
// says so.
func TestEncodeRefuses(t *testing.T) {
	encoded := func(r Rule) error {
		_, err := encode(transaction{{TableID{INet, TableName}, addRule{"c", r}}})
		return err
	}
	for want, rule := range map[string]Rule{
		"comment has 128 bytes": NewRule(strings.Repeat("x", 128), Do(Drop)),
		"prefix has 128 bytes":  NewRule("", Do(Log{Prefix: strings.Repeat("x", 128)})),
		"limit without a burst": NewRule("", Do(Limit{Rate: 1, Unit: PerSecond})),
	} {
		if err := encoded(rule); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := encoded(NewRule(Comment(strings.Repeat("x", 999)), Do(Log{Prefix: Comment(strings.Repeat("x", 999))}))); err != nil {
		t.Error(err)
	}
}

// nft(8) reads the comments and prefixes that Comment makes as they were
// written.
func TestCommentIsReadByNFT(t *testing.T) {
	k := newKernel(t)
	want := Table{Family: INet, Name: TableName, Chains: []Chain{{Name: "c"}}}
	say := func(text string) {
		prefix := Comment(strings.ReplaceAll(text, "$", "")) // see Log
		want.Chains[0].Rules = append(want.Chains[0].Rules, NewRule(Comment(text), Do(Log{Prefix: prefix}, Drop)))
	}
	for b := range 256 {
		say("a" + string([]byte{byte(b)}) + "b")
		say(string([]byte{byte(b)}))
	}
	for seed := range 200 {
		say(anyText.Example(seed))
	}
	k.apply(want)
	text := k.nft("list table inet polder")
	for _, script := range []string{text, want.String()} {
		k.apply()
		k.nft(script)
		if observed, _ := k.read(); !Diff(Ruleset{want}, observed).Empty() {
			t.Errorf("nft(8) made something else of\n%s", script)
		}
	}
}
