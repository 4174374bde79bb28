package ossemu

import (
	"encoding/xml"
	"net/http"
	"slices"

	"upcall/internal/ossrule"
)

func isPublic(acl string) bool { return acl == aclPublicRead || acl == aclPublicReadWrite }

func errPublicBlocked(what string) error {
	return errAccessDenied.saying("Put public "+what+" acl is not allowed", "")
}

// checkObjectACL refuses an ACL that does not exist or that the bucket does not allow. It
// accepts "", which means that there is none.
func (s *Server) checkObjectACL(bucket, acl string) error {
	if acl != "" && !slices.Contains(ossrule.ACLs, acl) {
		return badArgument("x-oss-object-acl", acl, "no such bucket access control exists", "0017-00000104")
	}
	if b, err := s.store.bucket(bucket); err == nil && b.blocksPublic() && isPublic(acl) {
		return errPublicBlocked("object")
	}
	return nil
}

// allowAnonymous accepts a request without a signature if the ACL of the object, or by
// default of the bucket, allows it. Settings and lists are never public.
func (s *Server) allowAnonymous(c *call, rt route) error {
	if c.level != levelObject || rt.match == "acl" {
		return errAccessDenied
	}
	b, err := s.store.bucket(c.bucket)
	if err != nil {
		return err
	}
	if b.blocksPublic() {
		return errAccessDenied
	}
	acl := b.ACL
	if o, err := s.store.get(c.bucket, c.key); err == nil && o.Meta.ACL != "" && o.Meta.ACL != aclDefault {
		acl = o.Meta.ACL
	}
	reads := (rt.method == http.MethodGet || rt.method == http.MethodHead) && !c.query.has("uploadId")
	if acl == aclPublicReadWrite || acl == aclPublicRead && reads {
		return nil
	}
	return errAccessDenied
}

var owner = ownerXML{ownerID, ownerID}

func (c *call) writeACL(acl string) error {
	return c.writeXML(http.StatusOK, struct {
		XMLName           xml.Name `xml:"AccessControlPolicy"`
		Owner             ownerXML
		AccessControlList grantXML
	}{Owner: owner, AccessControlList: grantXML{acl}})
}

func (s *Server) bucketACL(c *call) error {
	b, err := s.store.bucket(c.bucket)
	if err != nil {
		return err
	}
	return c.writeACL(b.ACL)
}

func (s *Server) objectACL(c *call) error {
	o, err := s.store.get(c.bucket, c.key)
	if err != nil {
		return err
	}
	if o.Meta.ACL == "" {
		return c.writeACL(aclDefault)
	}
	return c.writeACL(o.Meta.ACL)
}

func (s *Server) putObjectACL(c *call) error {
	acl := c.r.Header.Get("x-oss-object-acl")
	if acl == "" {
		return badArgument("x-oss-object-acl", "", "no such bucket access control exists", "0017-00000104")
	}
	if err := s.checkObjectACL(c.bucket, acl); err != nil {
		return err
	}
	if err := s.store.setACL(c.bucket, c.key, acl); err != nil {
		return err
	}
	return c.writeNothing(http.StatusOK)
}
