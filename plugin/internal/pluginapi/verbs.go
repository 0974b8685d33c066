package pluginapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"github.com/docker/go-plugins-helpers/sdk"
)

// manifest is the answer to Plugin.Activate, which only plugins outside the engine's management are asked.
const manifest = `{"Implements": ["NetworkDriver", "IpamDriver"]}`

var (
	errStarting = errors.New("not ready: Seaway is still starting, try again in a moment")
	errStopping = errors.New("cut short: Seaway is stopping")
	errNoSwarm  = errors.New("no Swarm here: Seaway's networks are local to each engine, create them without --scope swarm")
)

// verb answers one call: it turns a body into what is encoded as the answer.
type verb func(ctx context.Context, body []byte) (any, error)

// verbs is the protocol: every verb under its name, which is also its path.
func (s *Server) verbs() map[string]verb {
	return map[string]verb{
		"NetworkDriver.GetCapabilities": s.introduced.by("network", constant(networkCapabilities{
			// Scope local keeps Swarm out of it; the connectivity spans hosts all the same.
			CapabilitiesResponse: network.CapabilitiesResponse{
				Scope: network.LocalScope, ConnectivityScope: network.GlobalScope,
			},
			GwAllocChecker: true,
		})),
		"NetworkDriver.GwAllocCheck":     query(s.network, NetworkDriver.GwAllocCheck),
		"NetworkDriver.CreateNetwork":    command(s.network, NetworkDriver.CreateNetwork),
		"NetworkDriver.DeleteNetwork":    command(s.network, NetworkDriver.DeleteNetwork),
		"NetworkDriver.CreateEndpoint":   query(s.network, NetworkDriver.CreateEndpoint),
		"NetworkDriver.EndpointOperInfo": command(s.network, NetworkDriver.EndpointOperInfo),
		"NetworkDriver.DeleteEndpoint":   command(s.network, NetworkDriver.DeleteEndpoint),
		"NetworkDriver.Join":             query(s.network, NetworkDriver.Join),
		"NetworkDriver.Leave":            command(s.network, NetworkDriver.Leave),

		// Published ports are the engine's own affair as long as Join answers no gateway, and what
		// Swarm discovers is of no use here. AllocateNetwork is asked only by a Swarm manager.
		"NetworkDriver.ProgramExternalConnectivity": settled(nil),
		"NetworkDriver.RevokeExternalConnectivity":  settled(nil),
		"NetworkDriver.DiscoverNew":                 settled(nil),
		"NetworkDriver.DiscoverDelete":              settled(nil),
		"NetworkDriver.AllocateNetwork":             settled(errNoSwarm),
		"NetworkDriver.FreeNetwork":                 settled(errNoSwarm),

		// RequiresMACAddress stays false: with it every container's MAC would be the engine's random one.
		"IpamDriver.GetCapabilities": s.introduced.by("ipam", constant(ipamCapabilities{RequiresRequestReplay: true})),
		"IpamDriver.GetDefaultAddressSpaces": constant(ipam.AddressSpacesResponse{
			LocalDefaultAddressSpace: LocalAddressSpace, GlobalDefaultAddressSpace: GlobalAddressSpace,
		}),
		"IpamDriver.RequestPool":    query(s.ipam, IPAMDriver.RequestPool),
		"IpamDriver.ReleasePool":    command(s.ipam, IPAMDriver.ReleasePool),
		"IpamDriver.RequestAddress": s.introduced.before(query(s.ipam, IPAMDriver.RequestAddress)),
		"IpamDriver.ReleaseAddress": command(s.ipam, IPAMDriver.ReleaseAddress),
	}
}

// handler puts the verbs on the sdk's handler, whose mux answers 404 and 405 for all else. The calls'
// contexts come from calls.
func (s *Server) handler(calls context.Context) sdk.Handler {
	handler := sdk.NewHandler(manifest)
	for name, run := range s.verbs() {
		handler.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			s.answer(calls, w, r, name, run)
		})
	}
	return handler
}

// constant is a verb without arguments and without a driver.
func constant(response any) verb {
	return func(context.Context, []byte) (any, error) { return response, nil }
}

// settled is a verb with arguments on which the outcome does not depend.
func settled(outcome error) verb {
	return func(_ context.Context, body []byte) (any, error) {
		if err := decode(body, &struct{}{}); err != nil {
			return nil, err
		}
		return struct{}{}, outcome
	}
}

// query is a verb that a driver answers. No answer and no error is an empty answer, never none at all,
// which the engine would take for an error.
func query[D, Request, Response any](
	driver *gate[D], call func(D, context.Context, *Request) (*Response, error),
) verb {
	return func(ctx context.Context, body []byte) (any, error) {
		var request Request
		if err := decode(body, &request); err != nil {
			return nil, err
		}
		d, err := driver.wait(ctx)
		if err != nil {
			return nil, err
		}
		response, err := call(d, ctx, &request)
		if err != nil || response == nil {
			return struct{}{}, err
		}
		return response, nil
	}
}

// command is a verb that a driver answers with success or an error.
func command[D, Request any](driver *gate[D], call func(D, context.Context, *Request) error) verb {
	return query(driver, func(d D, ctx context.Context, request *Request) (*struct{}, error) {
		return nil, call(d, ctx, request)
	})
}

// decode reads the one JSON object that a body has to be. Field names match in any case and unknown ones
// are ignored, as between engines of different versions.
func decode(body []byte, request any) error {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return refuse(http.StatusBadRequest,
			"the request is empty: the engine repeats a call that was cut off without its arguments")
	}
	// "null" would decode as a request with all its fields empty.
	if body[0] != '{' {
		return refuse(http.StatusBadRequest, "the request is no JSON object")
	}
	err := json.Unmarshal(body, request)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return refuse(http.StatusBadRequest, "%s must not be a JSON %s", wrong.Field, wrong.Value)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "decode the request: %w", err)
	}
	return nil
}

// refusal is an error that has a status of its own; others leave as 500.
type refusal struct {
	status int
	error
}

// Unwrap returns what was wrong with the request.
func (r refusal) Unwrap() error { return r.error }

func refuse(status int, format string, args ...any) error {
	return refusal{status, fmt.Errorf(format, args...)}
}

// failure is how an error leaves. The engine reads Err from a network driver and Error from an IPAM
// driver; where it looks only at the status it reads Err from both.
type failure struct {
	Err   string
	Error string `json:",omitempty"`
}

func newFailure(name string, err error) failure {
	f := failure{Err: oneLine(err.Error())}
	if strings.HasPrefix(name, "IpamDriver.") {
		f.Error = f.Err
	}
	return f
}
