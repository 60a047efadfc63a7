package spec

import (
	"fmt"
	"math/big"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/gocty"
)

// Terraform's functions on CIDRs, on netip and for both families. Numbers are
// big integers: IPv6 has room for more subnets and hosts than an int counts,
// and Terraform's numbers have no bound either.

// cidrSubnet is the subnet with the number num among those that are newBits
// longer than the prefix.
func cidrSubnet(p netip.Prefix, newBits int, num *big.Int) (netip.Prefix, error) {
	size := p.Addr().BitLen()
	bits := p.Bits() + newBits
	switch {
	case newBits < 0:
		return netip.Prefix{}, fmt.Errorf("the prefix cannot be made shorter by %d bits", -newBits)
	case newBits > size || bits > size:
		return netip.Prefix{}, fmt.Errorf("%d more bits do not fit behind /%d: an address has %d", newBits, p.Bits(), size)
	case num.Sign() < 0 || num.BitLen() > newBits:
		return netip.Prefix{}, fmt.Errorf("there is no subnet %s: %d more bits number them from 0", num, newBits)
	}
	// num counts subnets, each of 2^(size-bits) addresses.
	offset := new(big.Int).Lsh(num, uint(size-bits))
	return netip.PrefixFrom(addTo(p.Masked().Addr(), offset), bits), nil
}

// cidrHost is the address with the number num in the prefix, a negative one
// counted from the end.
func cidrHost(p netip.Prefix, num *big.Int) (netip.Addr, error) {
	hosts := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
	// Terraform counts from the end with -1 for the last address.
	at := num
	if num.Sign() < 0 {
		at = new(big.Int).Add(hosts, num)
	}
	if at.Sign() < 0 || at.Cmp(hosts) >= 0 {
		return netip.Addr{}, fmt.Errorf("there is no address %s in %s, which has %s", num, p.Masked(), hosts)
	}
	return addTo(p.Masked().Addr(), at), nil
}

// addTo adds an offset that does not leave the address space, which the
// callers have checked: FillBytes panics on what does not fit.
func addTo(a netip.Addr, offset *big.Int) netip.Addr {
	b := a.AsSlice()
	sum := new(big.Int).SetBytes(b)
	out, _ := netip.AddrFromSlice(sum.Add(sum, offset).FillBytes(b))
	return out
}

// cidrSubnets are consecutive subnets, each newBits[i] longer than the prefix.
// Each begins at the next address at which a subnet of its length can, so that
// a short prefix behind a long one leaves a gap, as with Terraform.
func cidrSubnets(p netip.Prefix, newBits []int) ([]netip.Prefix, error) {
	var out []netip.Prefix
	next := p.Masked().Addr()
	for _, bits := range newBits {
		size := p.Addr().BitLen()
		if bits < 1 || bits > size || p.Bits()+bits > size {
			return nil, fmt.Errorf("%d more bits do not fit behind /%d", bits, p.Bits())
		}
		subnet := netip.PrefixFrom(next, p.Bits()+bits)
		if subnet != subnet.Masked() { // a longer one came before
			subnet = netip.PrefixFrom(lastAddr(subnet).Next(), subnet.Bits())
		}
		// Behind the end of the address space there is no address, and no
		// prefix contains that.
		if !p.Contains(subnet.Addr()) {
			return nil, fmt.Errorf("%s has no room for a /%d behind the ones before it", p.Masked(), p.Bits()+bits)
		}
		out = append(out, subnet)
		next = lastAddr(subnet).Next()
	}
	return out, nil
}

// The functions as HCL calls them: arguments are known, not null, and of the
// declared types.

// cidrArg reads the first argument. As with Terraform, host bits do not
// matter.
func cidrArg(v cty.Value) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil || p.Addr().Is4In6() {
		return p, function.NewArgErrorf(0, "%q is not a CIDR, as in 10.0.0.0/8 or fd00::/48", v.AsString())
	}
	return p, nil
}

// bitsArg reads a number of bits.
func bitsArg(i int, v cty.Value) (int, error) {
	n, ok := wholeNumber(v)
	if !ok {
		return 0, function.NewArgErrorf(i, "a whole number is wanted")
	}
	return n, nil
}

// bigArg reads the number of a subnet or a host.
func bigArg(i int, v cty.Value) (*big.Int, error) {
	f := v.AsBigFloat()
	// An exponent without bound would fill the memory.
	if !f.IsInt() || f.MantExp(nil) > 256 {
		return nil, function.NewArgErrorf(i, "a whole number is wanted")
	}
	n, _ := f.Int(nil)
	return n, nil
}

var (
	prefixParam  = function.Parameter{Name: "prefix", Type: cty.String}
	newBitsParam = function.Parameter{Name: "newbits", Type: cty.Number}
)

var cidrSubnetFunc = function.New(&function.Spec{
	Params: []function.Parameter{prefixParam, newBitsParam, {Name: "netnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := cidrArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		bits, err := bitsArg(1, args[1])
		if err != nil {
			return cty.NilVal, err
		}
		num, err := bigArg(2, args[2])
		if err != nil {
			return cty.NilVal, err
		}
		subnet, err := cidrSubnet(p, bits, num)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(subnet.String()), nil
	},
})

var cidrHostFunc = function.New(&function.Spec{
	Params: []function.Parameter{prefixParam, {Name: "hostnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := cidrArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		num, err := bigArg(1, args[1])
		if err != nil {
			return cty.NilVal, err
		}
		host, err := cidrHost(p, num)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(host.String()), nil
	},
})

var cidrNetmaskFunc = function.New(&function.Spec{
	Params: []function.Parameter{prefixParam},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := cidrArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		if FamilyOf(p.Addr()) != IPv4 {
			return cty.NilVal, function.NewArgErrorf(0, "only IPv4 has netmasks")
		}
		masked, err := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(p.Bits())
		if err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(masked.Addr().String()), nil
	},
})

var cidrSubnetsFunc = function.New(&function.Spec{
	Params:   []function.Parameter{prefixParam},
	VarParam: &newBitsParam,
	Type:     function.StaticReturnType(cty.List(cty.String)),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := cidrArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		var newBits []int
		for i, arg := range args[1:] {
			bits, err := bitsArg(1+i, arg)
			if err != nil {
				return cty.NilVal, err
			}
			newBits = append(newBits, bits)
		}
		subnets, err := cidrSubnets(p, newBits)
		if err != nil {
			return cty.NilVal, err
		}
		texts := make([]string, len(subnets))
		for i, s := range subnets {
			texts[i] = s.String()
		}
		return gocty.ToCtyValue(texts, cty.List(cty.String))
	},
})
