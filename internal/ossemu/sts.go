package ossemu

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// Temporary credentials replace those of STS. The server keeps nothing of them: the token
// says when it expires, and an HMAC under the permanent secret binds it to its access key id.
const (
	temporaryPrefix = "STS."
	defaultLife     = time.Hour
	maxLife         = 12 * time.Hour // as with STS
)

// secretFor returns the secret of an access key if the key exists and the token is valid
// for it.
func (s *Server) secretFor(keyID, token string) (string, error) {
	switch {
	case keyID != s.cfg.AccessKeyID && strings.HasPrefix(keyID, temporaryPrefix):
		return s.temporarySecret(keyID, token)
	case keyID != s.cfg.AccessKeyID:
		return "", errAccessKeyID.with("OSSAccessKeyId", keyID)
	case token == "" && s.cfg.SecurityToken != "":
		return "", errNoSecurityToken.with("OSSAccessKeyId", keyID)
	case subtle.ConstantTimeCompare([]byte(token), []byte(s.cfg.SecurityToken)) != 1:
		return "", errSecurityToken // a permanent key has no token
	}
	return s.cfg.AccessKeySecret, nil
}

func (s *Server) temporarySecret(keyID, token string) (string, error) {
	if token == "" {
		return "", errNoSecurityToken.with("OSSAccessKeyId", keyID)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 8 {
		return "", errSecurityToken
	}
	end := time.UnixMilli(int64(binary.BigEndian.Uint64(raw)))
	if !hmac.Equal([]byte(token), []byte(s.securityToken(keyID, end))) {
		return "", errSecurityToken
	}
	if !s.cfg.Now().Before(end) {
		return "", errTokenExpired
	}
	return s.secretOf(keyID), nil
}

func (s *Server) secretOf(temporaryKeyID string) string {
	return hex.EncodeToString(hmacSHA256([]byte(s.cfg.AccessKeySecret), "secret\n"+temporaryKeyID))
}

func (s *Server) securityToken(keyID string, end time.Time) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(end.UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(append(raw, hmacSHA256([]byte(s.cfg.AccessKeySecret), "token\n"+keyID+"\n"+string(raw))...))
}

// serveSTS gives out temporary credentials that expire after ?duration=, in the form that
// the SDKs expect of a credentials process. It demands the permanent key by HTTP basic
// authentication, because temporary credentials open every object.
func (s *Server) serveSTS(c *call) error {
	id, secret, _ := c.r.BasicAuth()
	if subtle.ConstantTimeCompare([]byte(id+"\n"+secret), []byte(s.cfg.AccessKeyID+"\n"+s.cfg.AccessKeySecret)) != 1 {
		c.w.Header().Set("WWW-Authenticate", `Basic realm="ossemu"`)
		return c.refuseJSON(http.StatusUnauthorized, "unauthorized",
			"give the access key as user and password: curl -u ID:SECRET -X POST …")
	}
	life := defaultLife
	if text := c.query["duration"]; text != "" {
		var err error
		if life, err = time.ParseDuration(text); err != nil || life <= 0 || life > maxLife {
			return c.refuseJSON(http.StatusBadRequest, "bad_duration", "duration is from 1ms to 12h: write 90s, say")
		}
	}
	var random [9]byte
	_, _ = rand.Read(random[:]) // never fails
	keyID := temporaryPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	end := s.cfg.Now().Add(life)
	return c.writeJSON(http.StatusOK, struct {
		AccessKeyId, AccessKeySecret, SecurityToken, Expiration string
	}{keyID, s.secretOf(keyID), s.securityToken(keyID, end), end.UTC().Format(time.RFC3339)})
}
