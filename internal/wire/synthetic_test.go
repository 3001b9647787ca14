package wire

import (
	"context"
	"time"

	"github.com/berthhq/berth/api"
)

// thing has what the schema can express and no service served yet uses: every kind of member, both
// forms of lists and maps, names of their own on the wire, attributes, recursion, a union.
type thing struct {
	Attribute   *string           `json:"attribute,omitzero"`
	Blob        []byte            `json:"blob,omitzero"`
	Bool        *bool             `json:"bool,omitzero"`
	Children    []thing           `json:"children,omitzero"`
	Choice      *choice           `json:"choice,omitzero"`
	Date        *time.Time        `json:"date,omitzero"`
	Double      *float64          `json:"double,omitzero"`
	Enum        color             `json:"enum,omitzero"`
	Enums       []color           `json:"enums,omitzero"`
	Flags       []bool            `json:"flags,omitzero"`
	FlatList    []string          `json:"flatList,omitzero"`
	FlatMap     map[string]string `json:"flatMap,omitzero"`
	Float       *float32          `json:"float,omitzero"`
	Int         *int32            `json:"int,omitzero"`
	Lists       [][]int64         `json:"lists,omitzero"`
	Long        *int64            `json:"long,omitzero"`
	Map         map[string]thing  `json:"map,omitzero"`
	Next        *thing            `json:"next,omitzero"`
	RenamedList []string          `json:"renamedList,omitzero"`
	Secret      *string           `json:"secret,omitzero"`
	Text        *string           `json:"text,omitzero"`
	Time        *time.Time        `json:"time,omitzero"`
	Times       []time.Time       `json:"times,omitzero"`
}

type color string

type choice struct {
	A *string `json:"a,omitzero"`
	B *int32  `json:"b,omitzero"`
}

var (
	shText   = &api.Shape{Name: "Text", Kind: api.String}
	shInt    = &api.Shape{Name: "Int", Kind: api.Integer, Min: api.Bound{Set: true, Value: -5}, Max: api.Bound{Set: true, Value: 1 << 24}}
	shLong   = &api.Shape{Name: "Long", Kind: api.Long}
	shTime   = &api.Shape{Name: "Time", Kind: api.Timestamp}
	shEnum   = &api.Shape{Name: "Enum", Kind: api.String, Enum: []string{"RED", "GREEN"}}
	shBool   = &api.Shape{Name: "Bool", Kind: api.Boolean}
	shSecret = &api.Shape{Name: "Secret", Kind: api.String, Sensitive: true, Max: api.Bound{Set: true, Value: 3}}
	shChoice = &api.Shape{Name: "Choice", Kind: api.Structure, Union: true, Members: []api.Member{
		{Name: "a", Shape: shText}, {Name: "b", Index: 1, Shape: shInt},
	}}
	shThing = &api.Shape{Name: "Thing", Kind: api.Structure}
	shThree = &api.Shape{Name: "Three", Kind: api.String, Pattern: `[\w]*`, Min: api.Bound{Set: true, Value: 3}}
)

func init() {
	list := func(m api.Member) *api.Shape { return &api.Shape{Name: "List", Kind: api.List, Elem: &m} }
	plain := func(s *api.Shape) api.Member { return api.Member{Index: -1, Shape: s} }
	mapping := func(s *api.Shape) *api.Shape {
		key, elem := plain(shText), plain(s)
		return &api.Shape{Name: "Map", Kind: api.Map, Key: &key, Elem: &elem}
	}
	shThing.Members = []api.Member{
		{Name: "attribute", LocationName: "attr", XMLAttribute: true, Shape: shText},
		{Name: "blob", Shape: &api.Shape{Kind: api.Blob}},
		{Name: "bool", Shape: shBool},
		{Name: "children", Shape: list(plain(shThing))},
		{Name: "choice", Shape: shChoice},
		{Name: "date", Shape: shTime, TimestampFormat: api.ISO8601},
		{Name: "double", Shape: &api.Shape{Kind: api.Double}},
		{Name: "enum", Shape: shEnum},
		{Name: "enums", Shape: list(plain(shEnum))},
		{Name: "flags", Shape: list(plain(shBool))},
		{Name: "flatList", Flattened: true, Shape: list(api.Member{Index: -1, Shape: shText, LocationName: "Item"})},
		{Name: "flatMap", Flattened: true, Shape: mapping(shText)},
		{Name: "float", Shape: &api.Shape{Kind: api.Float}},
		{Name: "int", LocationName: "Number", Shape: shInt},
		{Name: "lists", Shape: list(plain(list(plain(shLong))))},
		{Name: "long", Shape: shLong},
		{Name: "map", Shape: mapping(shThing)},
		{Name: "next", Shape: shThing},
		{Name: "renamedList", Shape: list(api.Member{Index: -1, Shape: shText, LocationName: "entry"})},
		{Name: "secret", Shape: shSecret},
		{Name: "text", Shape: shThree, Required: true},
		{Name: "time", Shape: shTime},
		{Name: "times", Shape: list(plain(shTime))},
	}
	for i := range shThing.Members {
		shThing.Members[i].Index = i
	}
}

var (
	syntheticOperation = &api.Operation{
		Name: "DoThing", Service: "synthetic", Method: "POST", URI: "/", Status: 200, Input: shThing, Output: shThing,
		NewInput:  func() any { return new(thing) },
		NewOutput: func() any { return new(thing) },
		Invoke:    func(_ context.Context, _, in any) (any, error) { return in, nil },
	}
	synthetic = &api.Service{
		ID: "Synthetic", Package: "synthetic", SigningName: "synthetic", APIVersion: "2026-01-01",
		Protocols: []api.Protocol{api.AWSJSON10, api.AWSQuery}, TargetPrefix: "Synthetic_2026.v1",
		XMLNamespace: "https://synthetic/?a=1&b=2", Operations: []*api.Operation{syntheticOperation},
	}
)
