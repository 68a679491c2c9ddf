//! Values as they stand in a query or a form.

use serde_json::Value;

use crate::manifest::ListStyle;

/// An object's members as pairs: nested objects as `a[b]=c`, lists by their style, `null` left out.
pub(crate) fn encode(value: &Value, style: ListStyle) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        add(name.clone(), value, style, &mut pairs);
    }
    pairs
}

fn add(name: String, value: &Value, style: ListStyle, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (member, value) in members {
                add(format!("{name}[{member}]"), value, style, pairs);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = match style {
                    ListStyle::Repeated => name.clone(),
                    ListStyle::Brackets => format!("{name}[]"),
                    ListStyle::Indexed => format!("{name}[{index}]"),
                };
                add(name, item, style, pairs);
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
        let value = json!({"a": 1, "b": {"c": {"d": true}}, "e": ["x", {"f": "y"}], "g": null, "h": []});
        let encoded =
            |style| encode(&value, style).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
        assert_eq!(encoded(ListStyle::Repeated), "a=1&b[c][d]=true&e=x&e[f]=y");
        assert_eq!(encoded(ListStyle::Brackets), "a=1&b[c][d]=true&e[]=x&e[][f]=y");
        assert_eq!(encoded(ListStyle::Indexed), "a=1&b[c][d]=true&e[0]=x&e[1][f]=y");
    }
}
