package verify_test

import (
	"context"
	"errors"
	"fmt"

	"upcall/internal/verify"
)

// A callback from OSS's documentation, first unchanged, then with another body.
func ExampleVerifier_Verify() {
	verifier, err := verify.New(verify.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	request := verify.Request{
		Target:        "/index.php?id=1&index=2",
		Body:          []byte("bucket=yonghu-test"),
		Authorization: "kKQeGTRccDKyHB3H9vF+xYMSrmhMZjzzl2/kdD1ktNVgbWEfYTQG0G2SU/RaHBovRCE8OkQDjC3uG33esH2txA==",
		PubKeyURL:     "aHR0cDovL2dvc3NwdWJsaWMuYWxpY2RuLmNvbS9jYWxsYmFja19wdWJfa2V5X3YxLnBlbQ==",
	}
	fmt.Println(verifier.Verify(context.Background(), request))

	request.Body = []byte("bucket=examplebucket")
	err = verifier.Verify(context.Background(), request)
	failure, _ := errors.AsType[*verify.Failure](err)
	fmt.Println(failure.Reason(), failure.Kind() == verify.NotSigned)
	// Output:
	// <nil>
	// digest_mismatch true
}
