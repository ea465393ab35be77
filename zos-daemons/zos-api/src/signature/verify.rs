//! The node's side: what came in, rule by rule.
//!
//! Both headers are parsed strictly (RFC 9651) and must be written canonically: what was parsed,
//! serialized again, is byte for byte what was sent. So the bytes that were sent are the signature
//! base's last line, and no two readings of a header exist.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use sfv::{BareItem, Dictionary, FieldType, InnerList, ListEntry, Parser};
use zos_types::TwinId;

use super::{AHEAD, LABEL, LIFETIME, MAX_NONCE, Nonces, Parts, base, components, content_digest};

/// The headers of a request as far as they matter here; each may come once.
#[derive(Clone, Copy, Default, Debug)]
pub struct Headers<'a> {
    /// `Zos-Audience`.
    pub audience: Option<&'a str>,
    /// `Content-Digest`.
    pub content_digest: Option<&'a str>,
    /// `Signature-Input`.
    pub input: Option<&'a str>,
    /// `Signature`.
    pub signature: Option<&'a str>,
}

/// A request whose signature is right.
///
/// Holding one proves that the holder of the twin's key wants this request of this node in this
/// epoch, and that it was not asked before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Who signed.
    pub twin: TwinId,
    /// What was signed; it holds the body's digest.
    pub base: String,
    /// The signature over it.
    pub signature: Signature,
}

impl Verified {
    /// The signature in base64.
    pub fn signature_text(&self) -> String {
        STANDARD.encode(self.signature.to_bytes())
    }
}

/// Why a request is refused. `Display` says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no signature.
    #[error("the request is not signed; sign it (RFC 9421, label `zos`) for this audience")]
    Missing,
    /// The headers are not of the profile.
    #[error("{0}")]
    Malformed(String),
    /// It is for another node, or for another run of this one.
    #[error("the request is signed for another audience; sign it for this one")]
    Audience,
    /// It is not valid at this time.
    #[error("{0}")]
    Expired(String),
    /// The signature is not the key's over this request.
    #[error("{0}")]
    Invalid(String),
    /// It was asked before.
    #[error("this very request was made before; sign again with a new nonce")]
    Replayed,
    /// The key has too many requests that have not expired.
    #[error("too many signed requests by this key; wait a minute, or let them expire sooner")]
    TooMany,
    /// All keys together have; the node draws a new epoch.
    #[error("too many signed requests in this epoch; sign for the new audience")]
    EpochFull,
}

impl Refusal {
    /// The end of the problem's `type`.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Missing => "signature-missing",
            Self::Malformed(_) => "signature-malformed",
            Self::Audience | Self::EpochFull => "signature-audience",
            Self::Expired(_) => "signature-expired",
            Self::Invalid(_) => "signature-invalid",
            Self::Replayed => "signature-replayed",
            Self::TooMany => "too-many-requests",
        }
    }
}

/// Judges a request for `audience` at `now` (seconds since 1970 by a clock that never goes back
/// within an epoch), and notes its nonce when everything else is right.
pub fn verify(
    parts: Parts<'_>,
    headers: Headers<'_>,
    body: &[u8],
    audience: &str,
    now: i64,
    nonces: &mut Nonces,
) -> Result<Verified, Refusal> {
    let (Some(input), Some(signature)) = (headers.input, headers.signature) else {
        return Err(Refusal::Missing);
    };
    let claim = Claim::parse(input, !body.is_empty())?;
    let signature = parse_signature(signature)?;
    match headers.audience {
        None => return Err(malformed("there is no Zos-Audience")),
        Some(named) if named != audience => return Err(Refusal::Audience),
        Some(_) => {}
    }
    claim.check_time(now)?;
    let digest = (!body.is_empty()).then(|| content_digest(body));
    if digest.is_some() && headers.content_digest != digest.as_deref() {
        return Err(Refusal::Invalid("Content-Digest is not `sha-256=:…:` of the body".into()));
    }
    let base = base(parts, audience, digest.as_deref(), claim.params);
    claim.twin.verifying_key().verify_strict(base.as_bytes(), &signature).map_err(|_| {
        Refusal::Invalid("the signature is not this key's over this request".into())
    })?;
    nonces.take(claim.twin, &claim.nonce, claim.expires, now)?;
    Ok(Verified { twin: claim.twin, base, signature })
}

/// What `Signature-Input` says, in the profile's form.
struct Claim<'a> {
    twin: TwinId,
    created: i64,
    expires: i64,
    nonce: String,
    /// The member's value as sent: what `@signature-params` is.
    params: &'a str,
}

impl<'a> Claim<'a> {
    fn parse(input: &'a str, body: bool) -> Result<Self, Refusal> {
        let Some(ListEntry::InnerList(list)) = member(input, "Signature-Input")? else {
            return Err(malformed("Signature-Input must be `zos=(…)` and nothing else"));
        };
        check_components(&list, body)?;
        let (mut created, mut expires, mut keyid, mut nonce, mut tag) =
            (None, None, None, None, None);
        for (name, value) in list.params {
            match (name.as_str(), value) {
                ("created", BareItem::Integer(time)) => created = Some(i64::from(time)),
                ("expires", BareItem::Integer(time)) => expires = Some(i64::from(time)),
                ("keyid", BareItem::String(text)) => keyid = Some(text),
                ("nonce", BareItem::String(text)) => nonce = Some(text),
                ("tag", BareItem::String(text)) => tag = Some(text),
                (name, _) => return Err(malformed(&format!("parameter `{name}` is not allowed"))),
            }
        }
        let absent = |name: &str| malformed(&format!("parameter `{name}` is missing"));
        let keyid = keyid.ok_or_else(|| absent("keyid"))?;
        let twin = keyid.as_str().parse().map_err(|e| malformed(&format!("keyid: {e}")))?;
        let nonce = String::from(nonce.ok_or_else(|| absent("nonce"))?);
        if nonce.is_empty() || nonce.len() > MAX_NONCE {
            return Err(malformed(&format!("a nonce has 1 to {MAX_NONCE} characters")));
        }
        if tag.ok_or_else(|| absent("tag"))?.as_str() != LABEL {
            return Err(malformed("tag must be `zos`"));
        }
        Ok(Self {
            twin,
            created: created.ok_or_else(|| absent("created"))?,
            expires: expires.ok_or_else(|| absent("expires"))?,
            nonce,
            params: &input[LABEL.len() + 1..],
        })
    }

    fn check_time(&self, now: i64) -> Result<(), Refusal> {
        let Self { created, expires, .. } = *self;
        if expires < created || expires - created > LIFETIME {
            return Err(malformed(&format!("expires must lie 0 to {LIFETIME} s after created")));
        }
        if created > now + AHEAD {
            return Err(Refusal::Expired(format!(
                "the signature is dated {} s ahead of the node's clock; date it by `time`",
                created - now
            )));
        }
        if expires < now {
            return Err(Refusal::Expired(format!(
                "the signature expired {} s ago by the node's clock; sign again, dated by `time`",
                now - expires
            )));
        }
        Ok(())
    }
}

fn check_components(list: &InnerList, body: bool) -> Result<(), Refusal> {
    let expected = components(body);
    let exact = list.items.len() == expected.len()
        && list.items.iter().zip(expected).all(|(item, name)| {
            item.params.is_empty()
                && matches!(&item.bare_item, BareItem::String(text) if text.as_str() == *name)
        });
    if exact {
        return Ok(());
    }
    let names = expected.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" ");
    Err(malformed(&format!("covered must be exactly ({names})")))
}

fn parse_signature(header: &str) -> Result<Signature, Refusal> {
    let error = || malformed("Signature must be `zos=:…:` of 64 bytes and nothing else");
    match member(header, "Signature")? {
        Some(ListEntry::Item(item)) if item.params.is_empty() => match item.bare_item {
            BareItem::ByteSequence(bytes) => Signature::from_slice(&bytes).map_err(|_| error()),
            _ => Err(error()),
        },
        _ => Err(error()),
    }
}

/// The only member of a dictionary, which is labelled `zos` and written canonically.
fn member(header: &str, name: &str) -> Result<Option<ListEntry>, Refusal> {
    let mut dictionary: Dictionary = Parser::new(header)
        .parse()
        .map_err(|e| malformed(&format!("{name} is no structured field: {e}")))?;
    if dictionary.len() != 1 {
        return Ok(None);
    }
    if dictionary.serialize().as_deref() != Some(header) {
        return Err(malformed(&format!(
            "{name} is not written canonically (RFC 9651, section 4.1)"
        )));
    }
    Ok(dictionary.swap_remove(LABEL))
}

fn malformed(detail: &str) -> Refusal {
    Refusal::Malformed(detail.to_owned())
}
