//! SPIRE UpstreamAuthority with a root held by keyd.
