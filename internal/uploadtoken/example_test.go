package uploadtoken_test

import (
	"errors"
	"fmt"
	"time"

	"upcall/internal/uploadtoken"
)

func Example() {
	keys, err := uploadtoken.ParseKeys("2026-11:a secret of at least 16 bytes")
	if err != nil {
		panic(err)
	}
	issued := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	token, err := keys.Mint(uploadtoken.Claims{
		UploadID: [16]byte{15: 1},
		Expires:  issued.Add(time.Hour),
		Bucket:   "demo",
		Object:   "cat.jpg",
	})
	if err != nil {
		panic(err)
	}

	_, err = keys.Check(token, uploadtoken.Callback{Bucket: "demo", Object: "cat.jpg"}, issued)
	fmt.Println(err)
	_, err = keys.Check(token, uploadtoken.Callback{Bucket: "demo", Object: "dog.jpg"}, issued)
	fmt.Println(errors.Is(err, uploadtoken.ErrForeignKey))
	// Output:
	// <nil>
	// true
}
