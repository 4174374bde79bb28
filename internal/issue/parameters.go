package issue

import (
	"encoding/json"
	"strings"
	"sync"

	"upcall/internal/callbackspec"
)

// maxKnown bounds the parameters that are kept. A service has a few; where the names
// of variables are left to callers there could be any number.
const maxKnown = 256

// A parameter is a callback parameter that was checked, plain and in Base64. It is
// shared: nobody may change it.
type parameter struct {
	document json.RawMessage
	encoded  string
}

// settings are all that a parameter depends on, but for whom it is to reach. Uploads
// that are issued in great number differ in the rest: key, token, values.
type settings struct {
	urls       [callbackspec.MaxURLs]string
	count      int // of urls
	host, body string
	bodyType   callbackspec.BodyType
	sni, token bool
	names      string // of the variables, one on a line
}

func (c *Callback) settings(names []string, withToken bool) settings {
	s := settings{count: len(c.URLs), host: c.Host, body: c.Body, bodyType: c.BodyType, sni: c.sni(), token: withToken, names: strings.Join(names, "\n")}
	copy(s.urls[:], c.URLs)
	return s
}

// parameters keeps the parameters of an issuer.
type parameters struct {
	mu    sync.RWMutex
	known map[settings]parameter
}

// parameter returns the parameter of the settings, built if it is not known. A nil p
// knows none.
func (p *parameters) parameter(s settings, build func() (parameter, error)) (parameter, error) {
	if p == nil || s.count > callbackspec.MaxURLs {
		return build()
	}
	p.mu.RLock()
	found, ok := p.known[s]
	p.mu.RUnlock()
	if ok {
		return found, nil
	}
	built, err := build()
	if err != nil {
		return parameter{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) == maxKnown {
		p.known = make(map[settings]parameter)
	}
	p.known[s] = built
	return built, nil
}
