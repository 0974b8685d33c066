package app

import (
	"context"

	"github.com/seaway-net/seaway/plugin/internal/pluginapi"
)

// refusal is both drivers when Seaway cannot work: every verb says why.
type refusal struct{ error }

var (
	_ pluginapi.NetworkDriver = refusal{}
	_ pluginapi.IPAMDriver    = refusal{}
)

// GwAllocCheck refuses.
func (r refusal) GwAllocCheck(context.Context, *pluginapi.GwAllocCheckRequest) (*pluginapi.GwAllocCheckResponse, error) {
	return nil, r.error
}

// CreateNetwork refuses.
func (r refusal) CreateNetwork(context.Context, *pluginapi.CreateNetworkRequest) error {
	return r.error
}

// DeleteNetwork refuses.
func (r refusal) DeleteNetwork(context.Context, *pluginapi.DeleteNetworkRequest) error {
	return r.error
}

// CreateEndpoint refuses.
func (r refusal) CreateEndpoint(context.Context, *pluginapi.CreateEndpointRequest) (*pluginapi.CreateEndpointResponse, error) {
	return nil, r.error
}

// EndpointOperInfo refuses.
func (r refusal) EndpointOperInfo(context.Context, *pluginapi.InfoRequest) error { return r.error }

// DeleteEndpoint refuses.
func (r refusal) DeleteEndpoint(context.Context, *pluginapi.DeleteEndpointRequest) error {
	return r.error
}

// Join refuses.
func (r refusal) Join(context.Context, *pluginapi.JoinRequest) (*pluginapi.JoinResponse, error) {
	return nil, r.error
}

// Leave refuses.
func (r refusal) Leave(context.Context, *pluginapi.LeaveRequest) error { return r.error }

// RequestPool refuses.
func (r refusal) RequestPool(context.Context, *pluginapi.RequestPoolRequest) (*pluginapi.RequestPoolResponse, error) {
	return nil, r.error
}

// ReleasePool refuses.
func (r refusal) ReleasePool(context.Context, *pluginapi.ReleasePoolRequest) error { return r.error }

// RequestAddress refuses.
func (r refusal) RequestAddress(context.Context, *pluginapi.RequestAddressRequest) (*pluginapi.RequestAddressResponse, error) {
	return nil, r.error
}

// ReleaseAddress refuses.
func (r refusal) ReleaseAddress(context.Context, *pluginapi.ReleaseAddressRequest) error {
	return r.error
}
