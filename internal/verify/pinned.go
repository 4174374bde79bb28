package verify

import (
	_ "embed"
	"encoding/base64"
)

// officialHost serves Alibaba Cloud's public keys.
const officialHost = "gosspublic.alicdn.com"

// pinnedPEM is the key that OSS signs callbacks with, for all customers and regions:
// 512 bits, e = 65537. It is compiled in, so that no request makes us fetch anything
// and no outage of a CDN affects us. It has not changed since 2015 at least.
//
// Source: http://gosspublic.alicdn.com/callback_pub_key_v1.pem
//
//go:embed callback_pub_key_v1.pem
var pinnedPEM []byte

// pinnedHeaders are the values of x-oss-pub-key-url that mean the pinned key: absent,
// as in some genuine callbacks; and its URL, which OSS announced with http in 2015 and
// has announced with https since 2018. The header is unsigned, so forgers may write what
// they like, but they gain nothing by naming the key that is used anyway.
var pinnedHeaders = [...]string{
	"",
	base64.StdEncoding.EncodeToString([]byte("https://" + officialHost + "/callback_pub_key_v1.pem")),
	base64.StdEncoding.EncodeToString([]byte("http://" + officialHost + "/callback_pub_key_v1.pem")),
}
