package httpserver

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestSource(t *testing.T) {
	t.Parallel()
	proxies, err := ParseProxies([]string{"127.0.0.1", " 10.0.0.0/8", "192.168.7.9/24", "", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	const oss, peer = "118.178.29.5", "10.0.0.7:4000"
	for name, tt := range map[string]struct {
		proxies   Proxies
		peer      string
		forwarded []string
		want      string
	}{
		"no proxies":                      {nil, peer, []string{oss}, "10.0.0.7"},
		"no header":                       {proxies, peer, nil, "10.0.0.7"},
		"stranger":                        {proxies, "203.0.113.9:4000", []string{oss}, "203.0.113.9"},
		"stranger beside the network":     {proxies, "11.0.0.7:4000", []string{oss}, "11.0.0.7"},
		"one proxy":                       {proxies, peer, []string{oss}, oss},
		"address in the network as given": {proxies, "192.168.7.1:80", []string{oss}, oss},
		"proxy over IPv6":                 {proxies, "[2001:db8::1]:80", []string{oss}, oss},
		"proxy as mapped IPv4":            {proxies, "[::ffff:10.0.0.7]:80", []string{oss}, oss},
		"two proxies":                     {proxies, peer, []string{oss + ", 192.168.7.3"}, oss},
		"two proxies, two lines":          {proxies, peer, []string{oss, "192.168.7.3"}, oss},
		"a stranger's claim":              {proxies, peer, []string{"1.2.3.4, 10.0.0.9, " + oss}, oss},
		"a stranger's claim, own line":    {proxies, peer, []string{"1.2.3.4", oss + ",10.0.0.8"}, oss},
		"only proxies":                    {proxies, peer, []string{"10.0.0.9, 127.0.0.1"}, "10.0.0.9"},
		"with a port":                     {proxies, peer, []string{oss + ":52012"}, oss},
		"IPv6":                            {proxies, peer, []string{"2400:3200::1"}, "2400:3200::1"},
		"IPv6 in brackets":                {proxies, peer, []string{"[2400:3200::1]"}, "2400:3200::1"},
		"IPv6 with a port":                {proxies, peer, []string{"[2400:3200::1]:52012"}, "2400:3200::1"},
		"IPv6 with a zone":                {proxies, peer, []string{"fe80::1%eth0"}, "fe80::1"},
		"mapped IPv4":                     {proxies, peer, []string{"::ffff:" + oss}, oss},
		"blanks and empty elements":       {proxies, peer, []string{" ,\t" + oss + " , ,"}, oss},
		"unknown":                         {proxies, peer, []string{oss + ", unknown"}, "10.0.0.7"},
		"unknown behind a proxy":          {proxies, peer, []string{oss + ", _secret, 10.0.0.8"}, "10.0.0.8"},
		"nonsense beyond the source":      {proxies, peer, []string{"<script>, " + oss}, oss},
		"empty header":                    {proxies, peer, []string{""}, "10.0.0.7"},
		"peer without an address":         {proxies, "@", []string{oss}, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{
			"X-Forwarded-For": tt.forwarded, "X-Real-Ip": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"},
		}}
		if got := tt.proxies.Source(r).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func TestParseProxies(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"proxy.example.com":   `UPCALL_TRUSTED_PROXIES: "proxy.example.com" is not a network such as 10.0.0.0/8, or an address`,
		"10.0.0.0/33":         "is not a network",
		"10.0.0.1:80":         "is not a network",
		"0.0.0.0/0":           "trusts everyone",
		"::/0":                "trusts everyone",
		"::ffff:10.0.0.0/104": "write it as IPv4",
	} {
		proxies, err := ParseProxies([]string{"10.0.0.0/8", text})
		if err == nil || !strings.Contains(err.Error(), want) || proxies != nil {
			t.Errorf("%s: got %v, %v, want an error with %q", text, proxies, err, want)
		}
	}
	single, err := ParseProxies([]string{"::ffff:10.1.2.3"})
	if err != nil || !single.trust(netip.MustParseAddr("10.1.2.3")) || single.trust(netip.MustParseAddr("10.1.2.4")) {
		t.Errorf("a single address: %v, %v", single, err)
	}
}
