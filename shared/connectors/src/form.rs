//! Values as they stand in a query or a form.

use serde_json::Value;

use crate::manifest::ListStyle;

/// An object's members as pairs: nested objects as `a[b]=c`, lists by their style, `null` left out.
pub(crate) fn encode(value: &Value, style: ListStyle) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        add(name.clone(), value, style, true, &mut pairs);
    }
    pairs
}

fn add(name: String, value: &Value, style: ListStyle, is_top: bool, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (member, value) in members {
                add(format!("{name}[{member}]"), value, style, false, pairs);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = match style {
                    // What belongs to one object of a list couldn't be told without its number.
                    _ if item.is_object() || item.is_array() => format!("{name}[{index}]"),
                    ListStyle::Indexed => format!("{name}[{index}]"),
                    ListStyle::Brackets => format!("{name}[]"),
                    ListStyle::Repeated if is_top => name.clone(),
                    ListStyle::Repeated => format!("{name}[]"),
                };
                add(name, item, style, false, pairs);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => pairs.push((name, scalar(value))),
    }
}

/// A value as text; what is no text as JSON.
pub(crate) fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_values_have_brackets_and_lists_their_style() {
        let value = json!({"a": 1, "b": {"c": {"d": true}}, "e": ["x", {"f": "y"}], "g": {"i": ["z"]}, "h": []});
        let encoded =
            |style| encode(&value, style).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
        assert_eq!(encoded(ListStyle::Repeated), "a=1&b[c][d]=true&e=x&e[1][f]=y&g[i][]=z");
        assert_eq!(encoded(ListStyle::Brackets), "a=1&b[c][d]=true&e[]=x&e[1][f]=y&g[i][]=z");
        assert_eq!(encoded(ListStyle::Indexed), "a=1&b[c][d]=true&e[0]=x&e[1][f]=y&g[i][0]=z");
    }
}
