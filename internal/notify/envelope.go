package notify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"upcall/internal/callbackspec"
)

// errMalformed says that a body is none that MNS or EventBridge sends.
var errMalformed = errors.New("malformed notification")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// An envelope is the body of a push: a message, and what MNS says of it in the formats XML and
// JSON.
type envelope struct {
	topic   Topic  // empty in the format SIMPLIFIED
	message string // JSON, no longer in Base64
}

// openEnvelope reads a body in any of MNS's formats (NotifyContentFormat), which nothing but
// the body tells apart.
//
// Source: "Push messages to an HTTP server" in the MNS documentation (2024).
func openEnvelope(body []byte) (envelope, error) {
	switch body = bytes.TrimSpace(body); {
	case bytes.HasPrefix(body, []byte("<")), bytes.HasPrefix(body, []byte("\xef\xbb\xbf<")):
		members, err := readXML(body)
		if err != nil {
			return envelope{}, err
		}
		return unwrap(members)
	case bytes.HasPrefix(body, []byte("{")):
		members, err := object("the body", string(body))
		if err != nil {
			return envelope{}, err
		}
		if _, wrapped := members["Message"]; !wrapped {
			return envelope{message: string(body)}, nil
		}
		texts := make(map[string]string)
		for _, name := range []string{"TopicOwner", "TopicName", "Message"} {
			if texts[name], err = text(name, members[name]); err != nil {
				return envelope{}, err
			}
		}
		return unwrap(texts)
	}
	return unwrap(map[string]string{"Message": string(body)})
}

func unwrap(members map[string]string) (e envelope, err error) {
	e.topic = Topic{Owner: members["TopicOwner"], Name: members["TopicName"]}
	// OSS publishes Base64, but a subscription can have MNS decode it.
	if e.message = strings.TrimSpace(members["Message"]); !strings.HasPrefix(e.message, "{") {
		decoded, err := base64.StdEncoding.DecodeString(e.message)
		if err != nil {
			return envelope{}, malformed("the message is neither JSON nor Base64")
		}
		e.message = string(decoded)
	}
	return e, nil
}

// readXML returns the texts of the elements in the root, which must be Notification. It refuses
// two of one name, of which one reader takes the first and another the last; a second root, which most
// readers pass over; and anything inside the elements, which no document of MNS has. Entities of its own and DTDs mean nothing to the
// decoder.
func readXML(body []byte) (map[string]string, error) {
	decoder := xml.NewDecoder(bytes.NewReader(body))
	elements := make(map[string]string)
	depth, name, content, root := 0, "", "", false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && len(elements) > 0 {
			return elements, nil
		}
		if err != nil {
			return nil, malformed("the body is not XML of MNS: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			switch depth++; {
			case depth == 1 && token.Name.Local != "Notification":
				return nil, malformed("the root of the XML is not Notification")
			case depth == 1 && root:
				return nil, malformed("the XML has two roots")
			case depth == 1:
				root = true
			case depth == 2:
				name, content = token.Name.Local, ""
			case depth > 2:
				return nil, malformed("an element of the XML holds others")
			}
		case xml.CharData:
			content += string(token)
		case xml.EndElement:
			if depth--; depth == 1 {
				if _, twice := elements[name]; twice {
					return nil, malformed("an element of the XML is there twice")
				}
				elements[name] = content
			}
		}
	}
}

// object returns the members of a JSON object, as written. It refuses what callbackspec
// refuses, duplicate names among it.
func object(what, doc string) (map[string]string, error) {
	members := make(map[string]string)
	err := callbackspec.EachMember([]byte(doc), func(name, value string) error {
		members[name] = value
		return nil
	})
	if err != nil {
		return nil, malformed("%s is not a JSON object: %v", what, err)
	}
	return members, nil
}

// text returns the text of a JSON string, or "" if there is none.
func text(what, raw string) (text string, err error) {
	if raw == "" || raw == "null" {
		return "", nil
	}
	if err := json.Unmarshal([]byte(raw), &text); err != nil {
		return "", malformed("%s is not a string", what)
	}
	return text, nil
}
