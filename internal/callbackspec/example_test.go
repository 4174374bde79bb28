package callbackspec_test

import (
	"errors"
	"fmt"

	"upcall/internal/callbackspec"
)

// The issuing side: what goes into the two headers of an upload.
func Example() {
	vars := callbackspec.Vars{"x:uid": "42"}
	parameter := callbackspec.Parameter{
		URLs: []string{"https://cb.example.com/oss/callback"},
		SNI:  true,
		Body: "bucket=${bucket}&object=${object}&uid=${x:uid}",
	}
	if err := vars.CheckReferences(parameter.Body); err != nil {
		fmt.Println(err)
		return
	}
	callback, err := parameter.Document(callbackspec.PublicHosts)
	if err != nil {
		fmt.Println(err)
		return
	}
	callbackVar, err := vars.Document()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n%s\n", parameter.JSON(), vars.JSON())
	fmt.Printf("x-oss-callback: %s…\nx-oss-callback-var: %s\n", callback.Base64()[:20], callbackVar.Base64())
	// Output:
	// {"callbackUrl":"https://cb.example.com/oss/callback","callbackBody":"bucket=${bucket}&object=${object}&uid=${x:uid}","callbackSNI":true}
	// {"x:uid":"42"}
	// x-oss-callback: eyJjYWxsYmFja1VybCI6…
	// x-oss-callback-var: eyJ4OnVpZCI6IjQyIn0=
}

func ExampleParameter_Check() {
	err := callbackspec.Parameter{
		URLs: []string{"http://localhost/oss/callback"},
		Body: "object=$(object)",
	}.Check(callbackspec.PublicHosts)
	fmt.Println(err)
	fmt.Println(errors.Is(err, callbackspec.ErrPrivateAddress))
	// Output:
	// callbackUrl: "http://localhost/oss/callback" is private: OSS cannot reach localhost; use an address that is reachable from the Internet
	// callbackBody: has a lone $ before "(object)"; write ${name}; a dollar sign itself is %24 in a form body and \u0024 in a JSON one
	// true
}

func ExampleWithToken() {
	body, err := callbackspec.WithToken(`{"key":${object}}`, callbackspec.JSON)
	fmt.Println(body, err)
	// Output: {"key":${object},"upcall_token":${x:upcall_token}} <nil>
}

func ExampleExpand() {
	values := callbackspec.Values{"object": "cats/tom.jpg", "size": "5385"}
	form, err := callbackspec.Expand("object=${object}&size=${size}", callbackspec.Form, values)
	fmt.Println(form, err)
	json, err := callbackspec.Expand(`{"object":${object},"size":${size},"vpcId":${vpcId}}`, callbackspec.JSON, values)
	fmt.Println(json, err)
	// Output:
	// object=cats%2Ftom.jpg&size=5385 <nil>
	// {"object":"cats/tom.jpg","size":5385,"vpcId":null} <nil>
}

// A callback that OSS genuinely signed, with a template that uses other names for its
// fields.
func ExampleParse() {
	fields, err := callbackspec.ParseFields("filename=object,height=imageInfo.height,width=imageInfo.width")
	if err != nil {
		fmt.Println(err)
		return
	}
	body := []byte("filename=headSculpture%2Fjikang2.jpg&size=108904&mimeType=image%2Fjpeg&height=278&width=200")
	c, err := callbackspec.Parse("application/x-www-form-urlencoded", body, fields)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Object, *c.Size, c.MimeType, *c.ImageWidth, *c.ImageHeight)
	// Output: headSculpture/jikang2.jpg 108904 image/jpeg 200 278
}
