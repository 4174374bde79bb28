package receiver

import (
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/google/go-cmp/cmp"

	"upcall/internal/confirm"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/hooks"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
	"upcall/internal/webhook"
)

// TestConfirmThroughTheLoop goes from callbacks to what applications are told: that of an upload through
// the emulator is confirmed, one that claims another size is disputed, and one without an object is gone. Once
// the receiver is idle, all has been told.
func TestConfirmThroughTheLoop(t *testing.T) {
	t.Parallel()
	app, emulator, keyURL, url := newAskedApp(t), ossfake.Start(t), ossfake.KeyURL(t), dbtest.URL(t)
	mode, err := confirm.ParseMode("all")
	if err != nil {
		t.Fatal(err)
	}
	settings := hooks.Settings{Name: "app", URL: app.URL + "/hook"}
	settings.On = []webhook.Kind{webhook.Disputed, webhook.Gone}
	receiver := start(t, Config{DatabaseURL: url, TrustKeyURLs: []string{keyURL, emulator + ossemu.PublicKeyPath},
		Confirm: &ConfirmConfig{Mode: mode, Grace: -1, OSS: oss.Config{Region: ossfake.Region, Endpoint: emulator,
			AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret}},
		Hooks: HooksConfig{Rules: hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			Declared: []hooks.Declared{{Settings: settings, Secret: app.secret}}}})
	pool := dbtest.Open(t, url, eventstore.Open)
	count := func(what string) (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall."+what).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	wait.Until(t, "the consumers are there", func() bool { return count("feed_consumers") == 3 })
	if status, answer := put(t, emulator, receiver.Public+"/oss/callback"); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	user := ossclient.New(emulator, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	if _, err := user.PutObject(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr(ossfake.Bucket), Key: sdk.Ptr("smaller.txt"),
		Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"bucket=demo&object=smaller.txt&size=4711&reqId=1", "bucket=demo&object=never.txt&size=5&reqId=2"} {
		if got := call(http.DefaultClient, receiver.Public, keyURL, body); got.code != http.StatusOK {
			t.Fatalf("%+v", got)
		}
	}
	key := viewerKey(t, url)
	idle := func() int {
		response := open(t, receiver.Admin+"/v1/idle?wait=10s", key)
		text, _ := io.ReadAll(response.Body)
		t.Logf("%d %s", response.StatusCode, text)
		return response.StatusCode
	}
	for tries := 1; idle() != http.StatusOK; tries++ {
		if tries == 6 {
			t.Fatal("it is never idle")
		}
	}
	var told []string
	for _, message := range app.at("/hook") {
		for _, kind := range []string{"disputed", "gone"} {
			for _, object := range []string{"a.txt", "smaller.txt", "never.txt"} {
				if strings.Contains(message, `"type":"upcall.upload.`+kind+`.v1"`) && strings.Contains(message, `"object_key":"`+object) &&
					strings.Contains(message, `"found":{`) {
					told = append(told, kind+" "+object)
				}
			}
		}
	}
	slices.Sort(told)
	if diff := cmp.Diff([]string{"disputed smaller.txt", "gone never.txt"}, told); diff != "" {
		t.Errorf("the application was told of other things: %s", diff)
	}
	gone := receiver.Metric(t, `upcall_confirm_outcomes_total{outcome="gone"}`)
	if n := count("confirmations WHERE outcome = 'confirmed'"); n != 1 || gone != 1 {
		t.Errorf("%d are confirmed, %v gone", n, gone)
	}
	if n := count("upload_freshness WHERE consumer = 'confirm' AND lag_seconds = 0"); n != 1 {
		t.Error("upload_freshness does not show confirm, or that it lags")
	}
}
