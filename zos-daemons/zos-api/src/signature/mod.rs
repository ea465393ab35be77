//! Signed requests: RFC 9421 with one exact profile, Ed25519, label and tag `zos`.
//!
//! ```text
//!  parts + body ─▶ base ─▶ Ed25519 ─▶ four headers ═══▶ form ─▶ audience ─▶ time ─▶ body ─▶ key ─▶ nonce ─▶ Verified
//!      twin: sign                                   node: verify; the first broken rule is the Refusal
//! ```
//!
//! Covered, in this order: `@method`, `@path`, `@query`, `zos-audience`, and `content-digest`
//! (RFC 9530, sha-256) exactly when there is a body. Parameters: `created`, `keyid` (the twin's
//! id), `expires`, `nonce`, `tag`; no `alg`. The audience names the node and its API's epoch, so a
//! request is good for one run of one node, and within it once.
//!
//! Everything here is pure: time comes in, and the only state is [`Nonces`].

mod nonces;
mod verify;

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
pub use nonces::Nonces;
use sha2::{Digest, Sha256};
pub use verify::{Headers, Refusal, Verified, verify};
use zos_types::Id;

/// The label in `Signature-Input` and `Signature`, and the value of `tag`.
pub const LABEL: &str = "zos";
/// The longest life of a signature, in seconds.
pub const LIFETIME: i64 = 300;
/// How far ahead of the node's clock a signature may be dated, in seconds.
pub const AHEAD: i64 = 60;
/// The longest nonce, in bytes.
pub const MAX_NONCE: usize = 64;

/// The parts of a request's head that are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts<'a> {
    /// The method: `PUT`.
    pub method: &'a str,
    /// The path exactly as sent: `/v1/deployments/web`.
    pub path: &'a str,
    /// What follows the `?`, exactly as sent; none without one.
    pub query: Option<&'a str>,
}

/// When a signature is made, how long it holds, and what makes it unlike every other.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Seconds since 1970, by the node's clock as far as it is known.
    pub created: i64,
    /// At most [`LIFETIME`] later.
    pub expires: i64,
    /// Never used before by this key: up to [`MAX_NONCE`] letters, digits, `-` and `_`.
    pub nonce: &'a str,
}

/// The headers of a signed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// `Zos-Audience`.
    pub audience: String,
    /// `Content-Digest`, when there is a body.
    pub content_digest: Option<String>,
    /// `Signature-Input`.
    pub input: String,
    /// `Signature`.
    pub signature: String,
}

impl Signed {
    /// Names and values, as they go into the request.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("zos-audience", Some(self.audience.as_str())),
            ("content-digest", self.content_digest.as_deref()),
            ("signature-input", Some(self.input.as_str())),
            ("signature", Some(self.signature.as_str())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Signs a request for an audience (`<node id>/<epoch>`).
pub fn sign(
    parts: Parts<'_>,
    body: &[u8],
    key: &SigningKey,
    audience: &str,
    moment: Moment<'_>,
) -> Signed {
    let content_digest = (!body.is_empty()).then(|| content_digest(body));
    let quoted = |name: &&str| format!("\"{name}\"");
    let names: Vec<String> = components(content_digest.is_some()).iter().map(quoted).collect();
    let names = names.join(" ");
    let Moment { created, expires, nonce } = moment;
    let keyid = Id::from(&key.verifying_key());
    let params = format!(
        "({names});created={created};keyid=\"{keyid}\";expires={expires};nonce=\"{nonce}\";tag=\"{LABEL}\""
    );
    let base = base(parts, audience, content_digest.as_deref(), &params);
    let signature = STANDARD.encode(key.sign(base.as_bytes()).to_bytes());
    Signed {
        audience: audience.to_owned(),
        content_digest,
        input: format!("{LABEL}={params}"),
        signature: format!("{LABEL}=:{signature}:"),
    }
}

/// The value of `Content-Digest` for a body (RFC 9530).
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// The covered components in their order.
fn components(body: bool) -> &'static [&'static str] {
    const NAMES: [&str; 5] = ["@method", "@path", "@query", "zos-audience", "content-digest"];
    if body { &NAMES } else { &NAMES[..4] }
}

/// The signature base (RFC 9421, section 2.5); `params` is the value of `@signature-params`.
fn base(parts: Parts<'_>, audience: &str, digest: Option<&str>, params: &str) -> String {
    let mut base = String::new();
    let mut line = |name: &str, value: std::fmt::Arguments<'_>| {
        let _ = writeln!(base, "\"{name}\": {value}"); // a String takes everything
    };
    line("@method", format_args!("{}", parts.method));
    line("@path", format_args!("{}", parts.path));
    line("@query", format_args!("?{}", parts.query.unwrap_or_default()));
    line("zos-audience", format_args!("{audience}"));
    if let Some(digest) = digest {
        line("content-digest", format_args!("{digest}"));
    }
    let _ = write!(base, "\"@signature-params\": {params}");
    base
}
