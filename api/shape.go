package api

// Kind is what a shape is.
type Kind uint8

const (
	Structure Kind = iota + 1
	List
	Map
	String    // *string, or an enum type when the shape has Enum values
	Integer   // *int32
	Long      // *int64
	Float     // *float32
	Double    // *float64
	Boolean   // *bool
	Timestamp // *time.Time
	Blob      // []byte
	Any       // Document
)

// Shape is a type of the model at run time: what a protocol needs to read and write a value, and what
// a validator needs to judge it. Shapes are static and shared; nobody changes one.
type Shape struct {
	Name    string
	Kind    Kind
	Members []Member // of a structure, sorted by Name
	Elem    *Member  // a list's member, a map's value
	Key     *Member  // a map's key
	Enum    []string
	Pattern string // in RE2's syntax, to be matched against the whole value; "" for none
	Min     Bound  // of a number's value, a string's or blob's length, a list's or map's size
	Max     Bound

	Flattened       bool
	LocationName    string
	TimestampFormat TimestampFormat
	XMLNamespace    string
	Payload         string // REST: the member that is the whole body
	Sensitive       bool   // must not be logged
	Union           bool   // exactly one member is set
	Box             bool
	Error           *ErrorTrait // set on errors
}

// Member is a use of a shape: a structure's member, a list's element, a map's key or value.
type Member struct {
	Name            string // the model's, which awsJson uses; "" in lists and maps
	LocationName    string // the name on the wire when it is not Name: query, XML and REST
	QueryName       string // ec2Query's own name
	Shape           *Shape
	Index           int // of the field in the Go struct
	Required        bool
	Location        Location
	Flattened       bool
	XMLAttribute    bool
	XMLNamespace    string
	TimestampFormat TimestampFormat // overrides the shape's
	Streaming       bool
	JSONValue       bool
	HostLabel       bool
	// IdempotencyToken: the SDK fills it in when the caller did not.
	IdempotencyToken bool
	Box              bool
	Deprecated       bool
}

// Wire is the member's name in the query and XML protocols.
func (m *Member) Wire() string {
	if m.LocationName != "" {
		return m.LocationName
	}
	return m.Name
}

// Member finds a structure's member by its model name; nil if there is none.
func (s *Shape) Member(name string) *Member {
	lo, hi := 0, len(s.Members)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.Members[mid].Name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.Members) && s.Members[lo].Name == name {
		return &s.Members[lo]
	}
	return nil
}

// Bound is an optional limit, inclusive.
type Bound struct {
	Set   bool
	Value float64
}

// Location is where a member travels in an HTTP message.
type Location string

const (
	InBody        Location = ""
	InURI         Location = "uri"
	InQueryString Location = "querystring"
	InHeader      Location = "header"
	InHeaders     Location = "headers" // a map, each entry a header
	InStatusCode  Location = "statusCode"
)

// TimestampFormat is how a timestamp is written; "" leaves it to the protocol.
type TimestampFormat string

const (
	ISO8601       TimestampFormat = "iso8601"
	RFC822        TimestampFormat = "rfc822"
	UnixTimestamp TimestampFormat = "unixTimestamp"
)

// ErrorTrait is what makes a structure an error.
type ErrorTrait struct {
	Code       string // what clients match
	HTTPStatus int
	Fault      Fault
}
