//! Fields of a form, as browsers encode them (`application/x-www-form-urlencoded`).

/// The decoded value of a field; nothing where there is no such field.
pub fn field(form: &str, name: &str) -> Option<String> {
    let mut fields = form.split('&').filter_map(|pair| pair.split_once('='));
    fields
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decode(value))
}

/// Undoes percent-encoding. A `%` that begins no encoded byte stands for itself.
fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'+', _) => (b' ', after),
            (b'%', [high, low, after @ ..]) if let Some(byte) = hexadecimal(*high, *low) => {
                (byte, after)
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded() {
        for (form, expected) in [
            ("text=a+b%21", Some("a b!")),
            ("x=1&text=%C3%A4", Some("\u{e4}")),
            ("text=50%&y=2", Some("50%")),
            ("text=%4", Some("%4")),
            ("text=", Some("")),
            ("other=1", None),
        ] {
            assert_eq!(field(form, "text").as_deref(), expected, "{form}");
        }
    }
}
