// Package v20170312 has the names of Tencent Cloud's VPC client that flannel's
// tencent-vpc backend refers to, so that flanneld compiles without a module of
// two hundred thousand lines, which not every module proxy serves. The tests
// never choose that backend; if it is chosen, each call fails.
package v20170312

import "errors"

var errLeftOut = errors.New("this flanneld was built without Tencent Cloud's VPC client")

// Client talks to nobody.
type Client struct{}

// Filter selects by a name's values.
type Filter struct {
	Name   *string
	Values []*string
}

// Route is a row of a route table.
type Route struct {
	RouteId, DestinationCidrBlock, GatewayType, GatewayId, RouteType *string
	Enabled                                                          *bool
}

// RouteTable is a table with its rows.
type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}

// RouteTables is what a description lists.
type RouteTables struct{ RouteTableSet []*RouteTable }

type (
	// DescribeRouteTablesRequest asks for route tables.
	DescribeRouteTablesRequest struct{ Filters []*Filter }
	// DescribeRouteTablesResponse lists them.
	DescribeRouteTablesResponse struct{ Response *RouteTables }
	// RoutesRequest adds or deletes rows.
	RoutesRequest struct {
		RouteTableId *string
		Routes       []*Route
	}
	// RoutesResponse is empty.
	RoutesResponse struct{}
)

// NewClientWithSecretId fails.
func NewClientWithSecretId(id, key, region string) (*Client, error) { return &Client{}, errLeftOut }

// NewDescribeRouteTablesRequest makes an empty request.
func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}

// NewCreateRoutesRequest makes an empty request.
func NewCreateRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

// NewDeleteRoutesRequest makes an empty request.
func NewDeleteRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

// DescribeRouteTables fails.
func (*Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errLeftOut
}

// CreateRoutes fails.
func (*Client) CreateRoutes(*RoutesRequest) (*RoutesResponse, error) { return nil, errLeftOut }

// DeleteRoutes fails.
func (*Client) DeleteRoutes(*RoutesRequest) (*RoutesResponse, error) { return nil, errLeftOut }
