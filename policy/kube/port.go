package kube

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/poldernet/polder/spec"
)

// service is a port. What is wrong about it is told in the API server's words.
func (c *converter) service(p *networkingv1.NetworkPolicyPort, path *field.Path) (spec.Service, bool) {
	before := len(c.errs)
	s := spec.Service{Protocol: protocols[corev1.ProtocolTCP]}
	if p.Protocol != nil {
		var known bool
		if s.Protocol, known = protocols[*p.Protocol]; !known {
			c.fail(field.NotSupported(path.Child("protocol"), *p.Protocol,
				[]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}))
		}
	}
	portPath, endPath := path.Child("port"), path.Child("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			c.fail(field.Invalid(endPath, *p.EndPort, "may not be specified when `port` is not specified: the range begins with `port`"))
		}
	case p.Port.Type == intstr.Int:
		c.number(p.Port.IntVal, portPath)
		s.Ports = spec.PortRange{First: uint16(p.Port.IntVal), Last: uint16(p.Port.IntVal)}
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				c.fail(field.Invalid(endPath, *p.EndPort, fmt.Sprintf("must be greater than or equal to `port`, which is %d", p.Port.IntVal)))
			}
			c.number(*p.EndPort, endPath)
			s.Ports.Last = uint16(*p.EndPort)
		}
	default:
		if p.EndPort != nil {
			c.fail(field.Invalid(endPath, *p.EndPort, "may not be specified when `port` is non-numeric: a range is of numbers"))
		}
		s.Name = p.Port.StrVal
		if s.Name != "" && strings.Trim(s.Name, "0123456789-") == "" {
			c.fail(field.Invalid(portPath, s.Name, "must contain at least one letter (a-z) to be a name; a number is written without quotes, a range as `port` and `endPort`"))
			break
		}
		if details := validation.IsValidPortName(s.Name); len(details) > 0 {
			c.fail(field.Invalid(portPath, s.Name, strings.Join(details, ", ")))
		}
	}
	return s, len(c.errs) == before
}

func (c *converter) number(port int32, path *field.Path) {
	for _, detail := range validation.IsValidPortNum(int(port)) {
		c.fail(field.Invalid(path, port, detail))
	}
}
