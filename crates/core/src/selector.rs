//! Label selectors, as `kubectl -l` writes them and as objects carry them.
//!
//! Grammar: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api>.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Which objects are meant, by their labels. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    /// Whether every requirement holds for these labels. As in Kubernetes, `!=` and `notin` hold where the key is absent.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }
}

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSelectorError(String);

impl fmt::Display for ParseSelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no label requirement; examples: role=worker, tier in (a,b), !gpu", self.0)
    }
}

impl std::error::Error for ParseSelectorError {}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, ParseSelectorError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        split_outside_parentheses(text).into_iter().map(parse_requirement).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<&LabelSelector> for Selector {
    type Error = ParseSelectorError;

    /// # Errors
    /// For an operator that is none of those that the API server accepts.
    fn try_from(selector: &LabelSelector) -> Result<Self, ParseSelectorError> {
        let labels = selector.match_labels.iter().flatten();
        let labels = labels.map(|(key, value)| Ok(Requirement::In(key.clone(), vec![value.clone()])));
        let expressions = selector.match_expressions.iter().flatten().map(|expression| {
            let (key, values) = (expression.key.clone(), expression.values.clone().unwrap_or_default());
            match expression.operator.as_str() {
                "In" => Ok(Requirement::In(key, values)),
                "NotIn" => Ok(Requirement::NotIn(key, values)),
                "Exists" => Ok(Requirement::Exists(key)),
                "DoesNotExist" => Ok(Requirement::Absent(key)),
                operator => Err(ParseSelectorError(format!("{key} {operator}"))),
            }
        });
        labels.chain(expressions).collect::<Result<_, _>>().map(Self)
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(text: &str) -> Result<Requirement, ParseSelectorError> {
    let text = text.trim();
    let wrong = || ParseSelectorError(text.to_owned());
    let key = |key: &str| Some(key.trim().to_owned()).filter(|key| is_label_text(key, "./")).ok_or_else(wrong);
    let one = |value: &str| match value.trim() {
        value if value.is_empty() || is_label_text(value, ".") => Ok(vec![value.to_owned()]),
        _ => Err(wrong()),
    };
    if let Some((left, right)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key(left)?, one(right)?));
    }
    if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(key(left)?, one(right)?));
    }
    if let Some((head, values)) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        let values = values.split(',').map(one).collect::<Result<Vec<_>, _>>()?.concat();
        return match head.split_whitespace().collect::<Vec<_>>()[..] {
            [name, "in"] => Ok(Requirement::In(key(name)?, values)),
            [name, "notin"] => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Requirement::Absent(key(name)?)),
        None => Ok(Requirement::Exists(key(text)?)),
    }
}

fn is_label_text(text: &str, punctuation: &str) -> bool {
    let inner = |character: char| {
        character.is_ascii_alphanumeric() || "-_".contains(character) || punctuation.contains(character)
    };
    let edge = |character: Option<char>| character.is_some_and(|character| character.is_ascii_alphanumeric());
    text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(selector: &str, labels: &str, expected: Option<bool>) {
        let labels = labels.split(' ').filter_map(|pair| pair.split_once('='));
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let matched = selector.parse::<Selector>().ok().map(|selector| selector.matches(&labels));
        assert_eq!(matched, expected, "{selector:?}");
    }

    #[test]
    fn requirements_mean_what_they_mean_to_kubectl() {
        check("", "a=1", Some(true));
        check("a=1", "a=1", Some(true));
        check("a==1,b!=2", "a=1", Some(true));
        check("a=1,b!=2", "a=1 b=2", Some(false));
        check("a in (1, 2),c", "a=2 c=x", Some(true));
        check("a notin (1,2)", "b=1", Some(true));
        check("a notin (1,2)", "a=2", Some(false));
        check("!a", "a=1", Some(false));
        check("node-role.kubernetes.io/worker=", "node-role.kubernetes.io/worker=", Some(true));
    }

    #[track_caller]
    fn check_object(selector: serde_json::Value, labels: &str, expected: Option<bool>) {
        let labels = labels.split(' ').filter_map(|pair| pair.split_once('='));
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let object: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
        let matched = Selector::try_from(&object).ok().map(|selector| selector.matches(&labels));
        assert_eq!(matched, expected, "{selector}");
    }

    #[test]
    fn the_selector_of_an_object_means_what_it_means_to_the_api_server() {
        let expression = |operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": "a", "operator": operator, "values": values }] });
        check_object(json!({}), "a=1", Some(true));
        check_object(json!({ "matchLabels": { "a": "1", "b": "2" } }), "a=1 b=2", Some(true));
        check_object(json!({ "matchLabels": { "a": "1", "b": "2" } }), "a=1", Some(false));
        check_object(expression("In", &["1", "2"]), "a=2", Some(true));
        check_object(expression("NotIn", &["1"]), "a=1", Some(false));
        check_object(expression("NotIn", &["1"]), "b=1", Some(true));
        check_object(expression("Exists", &[]), "a=1", Some(true));
        check_object(expression("DoesNotExist", &[]), "a=1", Some(false));
        check_object(expression("Gt", &["1"]), "a=2", None);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for wrong in ["=", "a in 1", "a in (1", "a b", ",", "a,", "a=b=c", "a=(x)", "!"] {
            check(wrong, "a=1", None);
        }
        let refused = "a b".parse::<Selector>().unwrap_err().to_string();
        assert!(refused.starts_with("\"a b\" is no label requirement; examples:"), "{refused}");
    }
}
