//! The schemas in `docs/`, which tests compare with what programs say.

use serde_json::{Value, json};

/// As much of JSON Schema as the schemas use; anything else in one is an error.
pub struct Schema(Value);

impl Schema {
    /// `docs/NAME.schema.json`.
    ///
    /// # Panics
    /// If there is none.
    pub fn read(name: &str) -> Self {
        let path = format!("{}/../docs/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// As it is written.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The forms of `anyOf` that a value has.
    ///
    /// # Panics
    /// If the schema uses what is not known here.
    pub fn forms(&self, value: &Value) -> Vec<String> {
        let all = self.0["anyOf"].as_array().into_iter().flatten();
        let names = all.filter_map(|of| of["$ref"].as_str());
        names
            .map(|name| name.trim_start_matches("#/$defs/"))
            .filter(|name| self.wrong(name, value).is_none())
            .map(str::to_owned)
            .collect()
    }

    /// What of a value has not a form, and where.
    ///
    /// # Panics
    /// If the schema uses what is not known here.
    pub fn wrong(&self, form: &str, value: &Value) -> Option<String> {
        let form = json!({"$ref": format!("#/$defs/{form}")});
        let mut at = Vec::new();
        let fits = self.fits(&form, value, &mut at);
        (!fits).then(|| at.join("; "))
    }

    fn fits(&self, schema: &Value, value: &Value, wrong: &mut Vec<String>) -> bool {
        let Some(rules) = schema.as_object() else {
            panic!("{schema} is no schema")
        };
        rules.iter().all(|(rule, of)| {
            let fits = self.rule(schema, rule, of, value, wrong);
            if !fits && wrong.is_empty() {
                wrong.push(format!("{rule} {of}: {value}"));
            }
            fits
        })
    }

    fn rule(
        &self,
        schema: &Value,
        rule: &str,
        of: &Value,
        value: &Value,
        wrong: &mut Vec<String>,
    ) -> bool {
        let list = || of.as_array().into_iter().flatten();
        match rule {
            "description" => true,
            "$ref" => {
                let name = of
                    .as_str()
                    .unwrap_or_default()
                    .trim_start_matches("#/$defs/");
                self.fits(&self.0["$defs"][name], value, wrong)
            }
            "enum" => list().any(|one| one == value),
            "type" => match of {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                items.all(|item| self.fits(of, item, wrong))
            }
            "required" => {
                let has =
                    |name: &Value| name.as_str().is_some_and(|name| value.get(name).is_some());
                value.is_null() || list().all(has)
            }
            "properties" => {
                let mut fields = value.as_object().into_iter().flatten();
                fields
                    .all(|(name, value)| of.get(name).is_none_or(|of| self.fits(of, value, wrong)))
            }
            "additionalProperties" => {
                let known = &schema["properties"];
                let mut more = value.as_object().into_iter().flatten();
                more.all(|(name, value)| {
                    known.get(name).is_some() || of.is_object() && self.fits(of, value, wrong)
                })
            }
            other => panic!("the schema uses {other}, which this test does not know"),
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}
