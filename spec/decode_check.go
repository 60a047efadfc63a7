package spec

import "github.com/hashicorp/hcl/v2"

// check decodes a check block into its instances.
func (decl *declarations) check(d *decoder, b *hcl.Block) bool {
	return d.instantiate(checkBlock, b, func(s *section, id identity) {
		c := &checkDecl{place: id.place}
		c.Name, c.Range = id.name, b.DefRange
		c.From, c.fromAt = s.end("from")
		c.To, c.toAt = s.end("to")
		c.Services, c.portAt = s.asked()
		c.Expect, _, _ = oneOf(s, "expect", "", Allow, Deny)
		if id.known {
			decl.checks = append(decl.checks, c)
		}
	})
}

// end is an attribute that names an end of a connection. Without one that is
// understood it has no kind.
func (s *section) end(name string) (End, place) {
	text, at, st := s.text(name, "")
	if st != known {
		return End{}, at
	}
	end, err := ParseEnd(text)
	if err != nil {
		s.report(at.problem("Unsuitable end", "%s %q: %s.", name, text, err))
		return End{}, at
	}
	switch end.Kind {
	case EndEndpoint:
		s.refer(endpointBlock, end.Name, at)
	case EndNode:
		s.refer(nodeBlock, end.Name, at)
	}
	return end, at
}

// asked is what a check asks for, or nil.
func (s *section) asked() ([]Service, place) {
	text, at, st := s.text("port", "")
	if st != known {
		return nil, at
	}
	services, err := ParseServices(text)
	if err != nil {
		s.report(at.problem("Unsuitable port", "%q is nothing to check: %s.", text, err))
		return nil, at
	}
	return services, at
}
