//! Bodies in Kubernetes' protobuf form, which clients made from Go types send: kubectl's `create`, among others. They do not
//! try again in JSON where a server refuses the form.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding> and `generated.proto` of
//! upstream's packages, see [`super::fields`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fields::{Field, Kind, Shape, message, of_kind};

/// What such a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The value of a field as it is sent.
#[derive(Clone, Copy)]
enum Sent<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a form that no field of Kubernetes has.
    Other,
}

/// Reads fields one after another.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let [byte] = *self.take(1)? else { return None };
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next field; none inside where the bytes are not well formed.
    fn field(&mut self) -> Option<(u32, Sent<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let sent = match key & 7 {
            0 => Sent::Number(self.varint()?),
            1 => self.take(8).map(|_| Sent::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Sent::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Sent::Other)?,
            _ => return None,
        };
        Some((number, sent))
    }

    /// All fields; none where the bytes are not well formed.
    fn fields(bytes: &'a [u8]) -> Option<Vec<(u32, Sent<'a>)>> {
        let (mut reader, mut fields) = (Self(bytes), Vec::new());
        while !reader.0.is_empty() {
            fields.push(reader.field()?);
        }
        Some(fields)
    }
}

/// The last value of a field, as text.
fn text(fields: &[(u32, Sent<'_>)], number: u32) -> Option<String> {
    let (_, sent) = fields.iter().rev().find(|(of, _)| *of == number)?;
    let Sent::Bytes(bytes) = sent else { return None };
    String::from_utf8(bytes.to_vec()).ok()
}

fn number(fields: &[(u32, Sent<'_>)], number: u32) -> i64 {
    let found = fields.iter().rev().find(|(of, _)| *of == number);
    // Negative ones are sent as the unsigned ones of the same bits.
    found.map_or(0, |(_, sent)| if let Sent::Number(number) = sent { number.cast_signed() } else { 0 })
}

/// The object of a body, as its JSON would be; none where the body is not well formed or of a kind that is not known.
pub(super) fn object(body: &[u8]) -> Option<Value> {
    // runtime.Unknown: 1 is its TypeMeta, of 1 the version and 2 the kind; 2 is the object.
    let unknown = Reader::fields(body.strip_prefix(MAGIC)?)?;
    let bytes = |number: u32| {
        unknown.iter().find_map(|(of, sent)| match sent {
            Sent::Bytes(bytes) if *of == number => Some(*bytes),
            _ => None,
        })
    };
    let named = Reader::fields(bytes(1)?)?;
    let (api_version, kind) = (text(&named, 1)?, text(&named, 2)?);
    let mut object = Map::new();
    read(of_kind(&api_version, &kind)?, bytes(2).unwrap_or_default(), &mut object)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Some(Value::Object(object))
}

/// Reads the fields of a message into an object. Those that are not known are of a newer release, and passed over as there.
fn read(name: &str, bytes: &[u8], object: &mut Map<String, Value>) -> Option<()> {
    let known = message(name)?;
    for (number, sent) in Reader::fields(bytes)? {
        let Some(field) = known.iter().find(|field| field.number == number && number > 0) else { continue };
        match (field.shape, field.kind) {
            (Shape::One, Kind::Message(name)) if field.is_inline => {
                let Sent::Bytes(bytes) = sent else { return None };
                read(name, bytes, object)?;
            }
            (Shape::One, kind) => {
                let value = value(kind, sent)?;
                let is_absent = value.is_null() || (field.is_left_out && is_zero(&value));
                if !is_absent {
                    object.insert(field.name.to_owned(), value);
                }
            }
            (Shape::Many, kind) => {
                let all = place(object, field, Value::Array(Vec::new()));
                all.as_array_mut()?.push(value(kind, sent)?);
            }
            (Shape::Map, kind) => {
                let Sent::Bytes(bytes) = sent else { return None };
                let entry = Reader::fields(bytes)?;
                let key = text(&entry, 1).unwrap_or_default();
                let sent = entry.iter().rev().find(|(number, _)| *number == 2).map(|(_, sent)| *sent);
                let all = place(object, field, Value::Object(Map::new()));
                all.as_object_mut()?.insert(key, value(kind, sent.unwrap_or(Sent::Bytes(&[])))?);
            }
        }
    }
    Some(())
}

fn place<'a>(object: &'a mut Map<String, Value>, field: &Field, empty: Value) -> &'a mut Value {
    object.entry(field.name).or_insert(empty)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null | Value::Array(_) => false,
    }
}

/// One value; null where a time is none.
fn value(kind: Kind, sent: Sent<'_>) -> Option<Value> {
    let bytes = match (kind, sent) {
        (Kind::Truth, Sent::Number(number)) => return Some((number != 0).into()),
        (Kind::Integer(_), Sent::Number(number)) => return Some(number.cast_signed().into()),
        (Kind::Truth | Kind::Integer(_), _) | (_, Sent::Number(_) | Sent::Other) => return None,
        (_, Sent::Bytes(bytes)) => bytes,
    };
    Some(match kind {
        Kind::Text => String::from_utf8(bytes.to_vec()).ok()?.into(),
        Kind::Bytes => STANDARD.encode(bytes).into(),
        Kind::Message(name) => {
            let mut object = Map::new();
            read(name, bytes, &mut object)?;
            Value::Object(object)
        }
        Kind::Quantity => text(&Reader::fields(bytes)?, 1).unwrap_or_else(|| "0".to_owned()).into(),
        Kind::IntegerOrText => {
            let fields = Reader::fields(bytes)?;
            if number(&fields, 1) == 1 { text(&fields, 3)?.into() } else { number(&fields, 2).into() }
        }
        Kind::Time | Kind::MicroTime => {
            let fields = Reader::fields(bytes)?;
            let (seconds, nanoseconds) = (number(&fields, 1), i32::try_from(number(&fields, 2)).ok()?);
            if (seconds, nanoseconds) == (0, 0) {
                return Some(Value::Null);
            }
            let format = if kind == Kind::Time { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
            Timestamp::new(seconds, nanoseconds).ok()?.strftime(format).to_string().into()
        }
        Kind::Raw => {
            let fields = Reader::fields(bytes)?;
            serde_json::from_str(&text(&fields, 1)?).ok()?
        }
        Kind::Truth | Kind::Integer(_) => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// What kubectl 1.37 sends for `create deployment d1 --image=nginx --replicas=2 -n shop`.
    pub(in crate::facade) const DEPLOYMENT: &str = "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EqsBCiEKAmQxEgAaBHNob3AiACoAMgA4AEIAWgkKA2FwcBICZDESeAgCEgsKCQoDYXBwEgJkMRpfChsKABIAGgAiACoAMgA4AEIAWgkKA2FwcBICZDESQBIiCgVuZ2lueBIFbmdpbngqAEIAagByAIABAIgBAJABAKIBABoAMgBCAEoAUgBYAGAAaACCAQCKAQCaAQDCAQAiAgoAKAA4ABoMCAAQABgAIAAoADgAGgAiAA==";
    /// `create pdb p1 -n shop --selector=app=mailer --min-available=50%`.
    const BUDGET: &str = "azhzAAogCglwb2xpY3kvdjESE1BvZERpc3J1cHRpb25CdWRnZXQSQgoWCgJwMRIAGgRzaG9wIgAqADIAOABCABIcCgkIARAAGgM1MCUSDwoNCgNhcHASBm1haWxlchoKCAAYACAAKAAwABoAIgA=";
    /// `create secret generic s1 --from-literal=a=b`.
    const SECRET: &str = "azhzAAoMCgJ2MRIGU2VjcmV0Eh4KEgoCczESABoAIgAqADIAOABCABIGCgFhEgFiGgAaACIA";

    pub(in crate::facade) fn body(base64: &str) -> Vec<u8> {
        STANDARD.decode(base64).unwrap()
    }

    fn sized(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[(number << 3) | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    /// Options of a deletion as a Go client sends them.
    pub(in crate::facade) fn deletion(kind: &str, uid: &str) -> Vec<u8> {
        let named = [sized(1, b"policy/v1"), sized(2, kind.as_bytes())].concat();
        let options = [vec![1 << 3, 30], sized(2, &sized(1, uid.as_bytes()))].concat();
        [MAGIC, &sized(1, &named), &sized(2, &options)].concat()
    }

    #[test]
    fn what_kubectl_sends_reads_as_the_json_of_it() {
        let expected = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d1", "namespace": "shop", "labels": {"app": "d1"}},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "d1"}},
                "template": {
                    "metadata": {"labels": {"app": "d1"}},
                    "spec": {"containers": [{"name": "nginx", "image": "nginx"}]},
                },
            },
        });
        assert_eq!(object(&body(DEPLOYMENT)), Some(expected));
        let budget = object(&body(BUDGET)).unwrap();
        let spec = json!({"minAvailable": "50%", "selector": {"matchLabels": {"app": "mailer"}}});
        assert_eq!(budget["spec"], spec);
        let secret = object(&body(SECRET)).unwrap();
        assert_eq!((&secret["data"], &secret["kind"]), (&json!({"a": "Yg=="}), &json!("Secret")));
        let options = object(&deletion("DeleteOptions", "u-1")).unwrap();
        assert_eq!((&options["gracePeriodSeconds"], &options["preconditions"]), (&json!(30), &json!({"uid": "u-1"})));
    }

    #[test]
    fn a_body_that_is_cut_off_changed_or_of_an_unknown_kind_is_none_and_ends() {
        let whole = body(DEPLOYMENT);
        for length in 0..whole.len() {
            // Between two fields of the outermost message nothing tells that more was to come.
            let is_part = |cut: Value| cut["spec"].is_null() || Some(&cut) == object(&whole).as_ref();
            assert!(object(&whole[..length]).is_none_or(is_part), "{length}");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 0x8f;
            // Many are well formed and mean something else.
            let _ = object(&changed);
        }
        assert_eq!(object(&deletion("Moon", "u-1")), None);
        assert_eq!(object(b"{}"), None);
    }
}
