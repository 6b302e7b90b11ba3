//! The issuance profiles that a SPIRE server's keys run under.

/// `[[issuance]]` tables for a server whose root and CA keys keyd holds, as an operator writes them.
pub fn profiles(trust_domain: &str) -> String {
    format!(
        r#"
[[issuance]]
keys = ["spire-root/root"]
trust_domain = "{trust_domain}"
own = {{ lifetime = "3650days" }}
ca = {{ lifetime = "30days", algorithms = ["ml-dsa-65"] }}

[[issuance]]
keys = ["spire-server/x509-CA-*"]
trust_domain = "{trust_domain}"
ca = {{ lifetime = "1day", path_length = 0, algorithms = ["ml-dsa-65"] }}
leaf = {{ lifetime = "1day", ids = ["spiffe://{trust_domain}/*"], algorithms = ["ml-dsa-65", "ec-p256", "ec-p384"] }}
"#
    )
}
