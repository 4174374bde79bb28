package ossemu

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/callbackspec"
)

// Formats of the body of a notification, by the names that MNS gives them (its
// NotifyContentFormat).
const (
	NotifyXML        = "XML"
	NotifyJSON       = "JSON"
	NotifySimplified = "SIMPLIFIED" // the message alone
)

var notifyTypes = map[string]string{
	NotifyXML: "text/xml;charset=utf-8", NotifyJSON: "application/json;charset=utf-8", NotifySimplified: "text/plain;charset=utf-8",
}

// DefaultTopic is what notifications come from unless the configuration names another topic.
const DefaultTopic = ownerID + "/ossemu"

// The rule in OSS and the subscription in MNS that the emulator stands for.
const (
	ruleID        = "ossemu"
	subscription  = "ossemu"
	mnsVersion    = "2015-06-06"
	mnsNamespace  = "http://mns.aliyuncs.com/doc/v1/"
	eventsVersion = "1.0"
	eventTime     = "2006-01-02T15:04:05.000Z"
)

// A happening is what a notification tells of.
type happening struct {
	name  string // ObjectCreated:PutObject, say
	at    time.Time
	o     *object
	delta int64 // by how much the bucket grew, in bytes
	vars  callbackspec.Vars
}

// document is the message that OSS publishes: one event. (Its help page of 2021-03, and
// captures of Function Compute's triggers. Where xVars stands differs between translations of
// the page; it is beside the other members here.)
func (h happening) document(c *call, region string) ([]byte, error) {
	type object struct {
		DeltaSize int64  `json:"deltaSize"`
		ETag      string `json:"eTag"` // upper case, without quotes
		Key       string `json:"key"`
		Size      int64  `json:"size"`
	}
	type bucket struct {
		ARN           string `json:"arn"`
		Name          string `json:"name"`
		OwnerIdentity string `json:"ownerIdentity"`
		VirtualBucket string `json:"virtualBucket"`
	}
	type oss struct {
		Bucket        bucket `json:"bucket"`
		Object        object `json:"object"`
		SchemaVersion string `json:"ossSchemaVersion"`
		RuleID        string `json:"ruleId"`
	}
	type event struct {
		Name              string            `json:"eventName"`
		Source            string            `json:"eventSource"`
		Time              string            `json:"eventTime"`
		Version           string            `json:"eventVersion"`
		OSS               oss               `json:"oss"`
		Region            string            `json:"region"`
		RequestParameters map[string]string `json:"requestParameters"`
		ResponseElements  map[string]string `json:"responseElements"`
		UserIdentity      map[string]string `json:"userIdentity"`
		XVars             callbackspec.Vars `json:"xVars,omitempty"`
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(map[string][]event{"events": {{
		Name: h.name, Source: "acs:oss", Time: h.at.UTC().Format(eventTime), Version: eventsVersion,
		OSS: oss{
			Bucket: bucket{ARN: "acs:oss:" + region + ":" + ownerID + ":" + h.o.Bucket, Name: h.o.Bucket, OwnerIdentity: ownerID},
			Object: object{DeltaSize: h.delta, ETag: h.o.ETag, Key: h.o.Key, Size: h.o.Content.Size}, SchemaVersion: eventsVersion, RuleID: ruleID,
		},
		Region:            region,
		RequestParameters: map[string]string{"sourceIPAddress": clientIP(c.r)},
		ResponseElements:  map[string]string{"requestId": c.id},
		UserIdentity:      map[string]string{"principalId": ownerID},
		XVars:             h.vars,
	}}})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// A message is one that MNS pushes, as often as it takes: the body stays, each push is signed anew.
type message struct {
	id        string
	published time.Time
	body      string
}

// notification is the body of MNS in the formats XML and JSON.
type notification struct {
	XMLName          xml.Name `xml:"Notification" json:"-"`
	Namespace        string   `xml:"xmlns,attr" json:"-"`
	TopicOwner       string
	TopicName        string
	Subscriber       string
	SubscriptionName string
	MessageID        string `xml:"MessageId" json:"MessageId"`
	Message          string
	MessageMD5       string
	PublishTime      string // milliseconds since 1970
}

// message wraps a document as MNS does. OSS publishes it in Base64.
func (cfg Config) message(document []byte) (message, error) {
	text := base64.StdEncoding.EncodeToString(document)
	m := message{id: strings.ToUpper(randomHex(16)), published: cfg.Now(), body: text}
	owner, topic, _ := strings.Cut(cfg.NotifyTopic, "/")
	n := notification{Namespace: mnsNamespace, TopicOwner: owner, TopicName: topic, Subscriber: owner, SubscriptionName: subscription,
		MessageID: m.id, Message: text, MessageMD5: upperMD5(text), PublishTime: m.publishTime()}
	var body []byte
	var err error
	switch cfg.NotifyFormat {
	case NotifySimplified:
		return m, nil
	case NotifyJSON:
		body, err = json.Marshal(n)
	default:
		body, err = xml.Marshal(n)
		body = append([]byte(`<?xml version="1.0" encoding="utf-8"?>`+"\n"), body...)
	}
	m.body = string(body)
	return m, err
}

func (m message) publishTime() string { return strconv.FormatInt(m.published.UnixMilli(), 10) }

// upperMD5 is the MD5 in upper-case hex, which is how MNS spells Content-MD5, too, though the
// header is Base64 by its RFC (a genuine push of 2023-03-29).
func upperMD5(text string) string {
	sum := md5.Sum([]byte(text))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// push returns the signed header of one push of m, and the string that was signed.
func (cfg Config) push(m message, target, keyURL string) (http.Header, string) {
	now := cfg.Now()
	owner, topic, _ := strings.Cut(cfg.NotifyTopic, "/")
	h := http.Header{
		"Content-MD5":             {upperMD5(m.body)},
		"Content-Type":            {notifyTypes[cmp.Or(cfg.NotifyFormat, NotifyXML)]},
		"Date":                    {now.UTC().Format(http.TimeFormat)},
		"User-Agent":              {"Aliyun Notification Service Agent"},
		"x-mns-message-id":        {m.id},
		"x-mns-publish-time":      {m.publishTime()},
		"x-mns-request-id":        {newRequestID(now)},
		"x-mns-signing-cert-url":  {base64.StdEncoding.EncodeToString([]byte(keyURL))},
		"x-mns-subscriber":        {owner},
		"x-mns-subscription-name": {subscription},
		"x-mns-topic-name":        {topic},
		"x-mns-topic-owner":       {owner},
		"x-mns-version":           {mnsVersion},
	}
	signed := pushToSign(target, h)
	h["Authorization"] = []string{signSHA1([]byte(signed))}
	return h, signed
}

// pushToSign is the text that MNS signs ("Topic message HTTP subscription signature"; the
// genuine push verifies so). The body is covered through Content-MD5 alone.
func pushToSign(target string, header http.Header) string {
	h := make(map[string]string)
	for name, values := range header {
		h[strings.ToLower(name)] = strings.Join(values, ",")
	}
	text := fmt.Sprintf("POST\n%s\n%s\n%s\n", h["content-md5"], strings.ToLower(h["content-type"]), h["date"])
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(name, "x-mns-") {
			text += name + ":" + h[name] + "\n"
		}
	}
	return text + target
}
