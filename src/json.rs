//! JSON of the application in the landlord: which values can be stored, how they are written, and when two are equal.
//!
//! The operations and the registry check a value with [`check`] before anything is written, and bind it with
//! [`to_stored`]. A value that passed the check is read back equal to what was given.
//!
//! `jsonb` keeps numbers as decimals: `1e16` comes back as `10000000000000000`, which is an integer and no longer a
//! float. Therefore floats are written with a decimal point, which `jsonb` keeps.
use crate::error::StoreError;
use crate::names::InvalidName;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Serializer, Value, ser::Formatter};
use sqlx::types::Json;
use std::io;

/// Maximum bytes of a tenant's metadata and of a server's labels, as JSON text. Lists and look-ups read them with each
/// row, so a page of 500 tenants stays below 32 MiB.
pub(crate) const MAX_METADATA: usize = 64 * 1024;
/// Maximum bytes of the input of a provisioning and of the output of a step, as JSON text. Each recovery reads them.
pub(crate) const MAX_INPUT: usize = 1024 * 1024;
/// Maximum depth of arrays and objects. serde_json reads at most 128 levels; the rest is left to the values that
/// contain this one.
const MAX_DEPTH: usize = 100;

/// Fails unless PostgreSQL can store the value and every node can read it back: at most `max_bytes` of text and 100
/// levels, no NUL character (`jsonb` refuses it with SQLSTATE 22P05), and only numbers that a 64-bit float can hold.
pub(crate) fn check(value: &Value, max_bytes: usize) -> Result<(), InvalidName> {
    check_content(value, MAX_DEPTH)?;
    let length = value.to_string().len();
    if length <= max_bytes { Ok(()) } else { Err(InvalidName::Length { length, min: 0, max: max_bytes }) }
}

fn check_content(value: &Value, depth_left: usize) -> Result<(), InvalidName> {
    if depth_left == 0 {
        return Err(InvalidName::Shape("JSON of at most 100 levels"));
    }
    match value {
        Value::String(text) => check_text(text),
        // With serde_json's feature `arbitrary_precision` a number can be larger than any float.
        Value::Number(number) if !number.as_f64().is_some_and(f64::is_finite) => {
            Err(InvalidName::Shape("JSON whose numbers fit a 64-bit float"))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_content(item, depth_left - 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, field)| {
            check_text(key)?;
            check_content(field, depth_left - 1)
        }),
        _ => Ok(()),
    }
}

fn check_text(text: &str) -> Result<(), InvalidName> {
    if text.contains('\0') { Err(InvalidName::Shape("JSON without the character NUL")) } else { Ok(()) }
}

/// The value as it is bound to a `jsonb` parameter.
///
/// # Errors
/// `Refused` if the value has more levels than can be read back.
pub(crate) fn to_stored(value: &Value) -> Result<Json<Box<RawValue>>, StoreError> {
    let mut text = vec![];
    value.serialize(&mut Serializer::with_formatter(&mut text, KeepFloats)).map_err(StoreError::refused)?;
    let text = String::from_utf8(text).map_err(StoreError::refused)?;
    RawValue::from_string(text).map(Json).map_err(StoreError::refused)
}

/// Writes a float that an integer could hold with a decimal point instead of an exponent.
struct KeepFloats;
impl Formatter for KeepFloats {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Larger numbers do not fit an integer, so they come back as floats in any notation.
        let could_be_integer = (1e16..18_446_744_073_709_551_616.0).contains(&value.abs());
        if could_be_integer {
            write!(writer, "{value:.1}")
        } else {
            serde_json::ser::CompactFormatter.write_f64(writer, value)
        }
    }
}

/// Whether two values are the same JSON, as `jsonb` compares them: `1` and `1.0` are the same number.
#[cfg(feature = "testing")]
pub(crate) fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn check_names_the_broken_rule() {
        let deep = (0..101).fold(Value::Null, |inner, _| json!([inner]));
        assert!(check(&json!([1e308, f64::MAX, u64::MAX, i64::MIN, 5e-324, "\u{fffd}"]), MAX_METADATA).is_ok());
        for bad in [json!({"a": "x\0"}), json!({"a\0": 1}), json!([["\0"]]), deep] {
            assert!(matches!(check(&bad, MAX_METADATA), Err(InvalidName::Shape(_))), "{bad}");
        }
        let long = json!("x".repeat(MAX_METADATA));
        assert!(matches!(check(&long, MAX_METADATA), Err(InvalidName::Length { max: MAX_METADATA, .. })));
    }

    #[test]
    fn stored_text_of_a_float_is_read_back_as_the_same_float() {
        for float in [1e16, -1e16, 1.844674407370955e19, 1e15, 1e22, f64::MAX, 0.1 + 0.2, 5e-324, 1.0, 100.0] {
            let text = to_stored(&json!(float)).unwrap().0.get().to_owned();
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, json!(float), "{text}");
        }
    }
}
