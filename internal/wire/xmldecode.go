package wire

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/berthhq/berth/api"
)

// xmlDecoder reads values of the schema from XML. Namespaces are not heeded, elements that no member has
// are skipped, and no entity is expanded but XML's own five.
type xmlDecoder struct {
	*xml.Decoder
	budget budget
	depth  int
}

var errXMLEnd = inputError("it ends too early")

// decodeXML reads the body's root element, whatever its name, into a structure. An empty body is an
// empty structure.
func decodeXML(v reflect.Value, s *api.Shape, body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := xmlDecoder{Decoder: xml.NewDecoder(bytes.NewReader(body))}
	for seen := false; ; {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			if !seen {
				return errXMLEnd
			}
			return nil
		}
		if err != nil {
			return xmlError(err)
		}
		start, ok := t.(xml.StartElement)
		if text, is := t.(xml.CharData); is && len(bytes.TrimSpace(text)) > 0 || ok && seen {
			return inputError("there is more than one root element")
		}
		if ok {
			seen = true
			if err := d.structure(v, s, start); err != nil {
				return err
			}
		}
	}
}

func xmlError(err error) error {
	if errors.Is(err, io.EOF) {
		return errXMLEnd
	}
	if own := inputError(""); errors.As(err, &own) {
		return own
	}
	return inputErrorf("%s", clip(err.Error(), 256))
}

// child gives the next element inside the one that was begun; ok is false at its end.
func (d *xmlDecoder) child() (start xml.StartElement, ok bool, err error) {
	for {
		t, err := d.Token()
		if err != nil {
			return xml.StartElement{}, false, xmlError(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t, true, nil
		case xml.EndElement:
			return xml.StartElement{}, false, nil
		}
	}
}

func (d *xmlDecoder) structure(v reflect.Value, s *api.Shape, start xml.StartElement) error {
	if d.depth++; d.depth > MaxDepth {
		return errDepth()
	}
	defer func() { d.depth-- }()
	for _, a := range start.Attr {
		for i := range s.Members {
			if m := &s.Members[i]; m.XMLAttribute && localName(m.Wire()) == a.Name.Local {
				if err := setText(v.Field(m.Index), m, a.Value); err != nil {
					return inputErrorf("%v: %s", err, m.Name)
				}
			}
		}
	}
	for {
		start, ok, err := d.child()
		if err != nil || !ok {
			return err
		}
		m := xmlMember(s, start.Name.Local)
		if m == nil {
			if err := d.Skip(); err != nil {
				return xmlError(err)
			}
			continue
		}
		f := v.Field(m.Index)
		if m.Shape.Kind == api.List && (m.Flattened || m.Shape.Flattened) {
			err = d.item(f, m.Shape.Elem, start)
		} else {
			err = d.value(f, m, start)
		}
		if err != nil {
			return err
		}
	}
}

// xmlMember finds the member that an element of this name is, nil for none.
func xmlMember(s *api.Shape, name string) *api.Member {
	for i := range s.Members {
		m := &s.Members[i]
		if m.Location != api.InBody || m.XMLAttribute {
			continue
		}
		own := m.Wire()
		if m.Shape.Kind == api.List && (m.Flattened || m.Shape.Flattened) && m.LocationName == "" {
			own = cmp.Or(m.Shape.Elem.LocationName, own)
		}
		if localName(own) == name {
			return m
		}
	}
	return nil
}

// localName is a name without its prefix: the models write xsi:type.
func localName(name string) string { return name[strings.LastIndexByte(name, ':')+1:] }

// item appends an element to a list.
func (d *xmlDecoder) item(v reflect.Value, elem *api.Member, start xml.StartElement) error {
	if err := d.budget.spend(v.Type().Elem().Size()); err != nil {
		return err
	}
	e := reflect.New(v.Type().Elem()).Elem()
	if err := d.value(e, elem, start); err != nil {
		return err
	}
	v.Set(reflect.Append(v, e))
	return nil
}

// value reads the element that was begun.
func (d *xmlDecoder) value(v reflect.Value, m *api.Member, start xml.StartElement) error {
	s := m.Shape
	switch s.Kind {
	case api.Structure:
		if v.Kind() == reflect.Pointer {
			if err := d.budget.spend(v.Type().Elem().Size()); err != nil {
				return err
			}
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		return d.structure(v, s, start)
	case api.List:
		if d.depth++; d.depth > MaxDepth {
			return errDepth()
		}
		defer func() { d.depth-- }()
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		want := cmp.Or(s.Elem.LocationName, "member")
		for {
			start, ok, err := d.child()
			if err != nil || !ok {
				return err
			}
			if start.Name.Local != want {
				err = xmlSkip(d)
			} else {
				err = d.item(v, s.Elem, start)
			}
			if err != nil {
				return err
			}
		}
	case api.Map, api.Any:
		return inputErrorf("%s cannot be sent in XML", m.Name)
	}
	text, err := d.text()
	if err != nil {
		return err
	}
	if s.Kind != api.String {
		text = strings.TrimSpace(text)
		if text == "" {
			return nil
		}
	}
	if err := setText(v, m, text); err != nil {
		return inputErrorf("%v: %s", err, clip(start.Name.Local, 128))
	}
	return nil
}

func xmlSkip(d *xmlDecoder) error {
	if err := d.Skip(); err != nil {
		return xmlError(err)
	}
	return nil
}

// text reads an element that holds nothing but text.
func (d *xmlDecoder) text() (string, error) {
	var b []byte
	for {
		t, err := d.Token()
		if err != nil {
			return "", xmlError(err)
		}
		switch t := t.(type) {
		case xml.CharData:
			b = append(b, t...)
		case xml.StartElement:
			return "", inputErrorf("an element where text is expected: %s", clip(t.Name.Local, 128))
		case xml.EndElement:
			return string(b), nil
		}
	}
}
