package pluginapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// FuzzHandler sends any body to any path of a server whose drivers fail with what they were asked. What
// comes back must be an answer of the protocol, whatever went in.
func FuzzHandler(f *testing.F) {
	for _, c := range wireCases {
		f.Add(c.verb, []byte(c.body))
	}
	f.Add("NetworkDriver.GetCapabilities", []byte(nil))
	f.Add("NetworkDriver.Join", []byte(nil))
	f.Add("NetworkDriver.CreateNetwork", []byte(`{"IPv4Data":[{"Pool":"10.0.0.0/33"}]} x`))
	f.Add("NetworkDriver.CreateEndpoint", []byte(`{"Options":{"a":[[[[{"b":1e999}]]]],"\u0000":"\ud800"}}`))
	f.Add("IpamDriver.RequestPool", []byte("{\"Options\":{\"\xff\":\"\x1b[2J\"}}"))
	f.Add("../NetworkDriver.Leave", []byte("null"))

	s := serve(f, Options{})
	driver := &recorder{}
	driver.hook = func(context.Context) error { return fmt.Errorf("asked %+v", driver.lastRequest()) }
	s.Use(driver, driver)
	known := s.verbs()
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		target := url.URL{Scheme: "http", Host: "plugin.moby.localhost", Path: "/" + path}
		request, err := http.NewRequest(http.MethodPost, target.String(), strings.NewReader(string(body)))
		if err != nil {
			t.Skip(err)
		}
		response, err := s.client.Transport.RoundTrip(request) // no redirects
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, ours := known[path]; ours {
			checkAnswer(t, path, response.StatusCode, answer)
		} else if path != "Plugin.Activate" && !slices.Contains([]int{301, 307, 308, 404}, response.StatusCode) {
			t.Errorf("%q: status %d", path, response.StatusCode)
		}
	})
}

func checkAnswer(t *testing.T, path string, status int, answer []byte) {
	t.Helper()
	if err := json.Unmarshal(answer, &struct{}{}); err != nil {
		t.Errorf("%s: answer %q: %v", path, answer, err)
	}
	if status == http.StatusOK {
		return
	}
	if !slices.Contains([]int{400, 413, 500}, status) {
		t.Errorf("%s: status %d", path, status)
	}
	text := errText(t, path, string(answer))
	unprintable := strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
	if text == "" || len(text) > maxErrorText || unprintable {
		t.Errorf("%s: error %q", path, text)
	}
	if text == (&panicked{}).Error() {
		t.Errorf("%s: %v", path, errors.New("panic"))
	}
}
