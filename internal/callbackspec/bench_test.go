package callbackspec_test

import (
	"testing"

	spec "upcall/internal/callbackspec"
)

func BenchmarkParse(b *testing.B) {
	for _, bm := range []struct {
		name string
		t    spec.BodyType
	}{{"form", spec.Form}, {"json", spec.JSON}} {
		b.Run(bm.name, func(b *testing.B) {
			template, err := spec.DefaultBody(bm.t, []string{"uid"}, true)
			if err != nil {
				b.Fatal(err)
			}
			c := everything()
			c.Object = "albums/2026/été/IMG_0001.jpg"
			values := valuesOf(c)
			values["x:uid"] = "4242"
			body, err := spec.Expand(template, bm.t, values)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := spec.Parse(string(bm.t), []byte(body), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
