//! A root of Terraform's, read: what stands in its files, whether every type, attribute and block is in the providers' schema
//! (`tests/fixtures/provider-schema.json`), and whether every reference leads somewhere. Each finding is one line.
//!
//! Include with `#[path = "support/hcl.rs"] mod hcl;`.

#![allow(dead_code, reason = "shared by several test files; none uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hcl_edit::expr::{Expression, ForExpr, Traversal, TraversalOperator};
use hcl_edit::structure::{Block, Body, Structure};
use hcl_edit::visit::{self, Visit};
use serde_json::Value;

/// What may stand in any resource.
const META: [&str; 4] = ["count", "for_each", "depends_on", "provider"];

pub struct Root {
    pub dir: PathBuf,
    /// Every block at the top of every file, with the file's name.
    pub blocks: Vec<(String, Block)>,
}

impl Root {
    pub fn read(dir: &Path) -> Self {
        let mut blocks = Vec::new();
        for file in std::fs::read_dir(dir).expect("a directory").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".tf") {
                continue;
            }
            let text = std::fs::read_to_string(file.path()).expect("a file");
            let body = hcl_edit::parser::parse_body(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            for structure in body {
                match structure {
                    Structure::Block(block) => blocks.push((name.clone(), block)),
                    Structure::Attribute(attribute) => panic!("{name}: {} at the top", attribute.key.as_str()),
                }
            }
        }
        assert!(!blocks.is_empty(), "{} holds no configuration", dir.display());
        Self {
            dir: dir.to_owned(),
            blocks,
        }
    }

    /// Blocks of one kind, e.g. `variable`.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Block> {
        self.blocks
            .iter()
            .map(|(_, block)| block)
            .filter(move |block| block.ident.as_str() == kind)
    }

    pub fn variables(&self) -> BTreeMap<String, &Block> {
        self.all("variable").map(|block| (label(block, 0), block)).collect()
    }

    pub fn outputs(&self) -> BTreeMap<String, &Block> {
        self.all("output").map(|block| (label(block, 0), block)).collect()
    }

    /// Of one type.
    pub fn resources<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Block> {
        self.all("resource").filter(move |block| label(block, 0) == kind)
    }

    /// Everything that does not fit the schema, and every reference that leads nowhere.
    pub fn mistakes(&self, schema: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for (file, block) in &self.blocks {
            let kind = block.ident.as_str();
            let what = format!("{file}: {}", titled(block));
            match kind {
                "resource" | "data" => {
                    let known = &schema[kind][label(block, 0)];
                    if known.is_null() {
                        found.push(format!("{what}: no such type"));
                    } else {
                        fits(&block.body, known, &what, true, &mut found);
                    }
                }
                "terraform" | "provider" | "variable" | "output" | "locals" => {}
                other => found.push(format!("{what}: what is {other}?")),
            }
            let mut references = References {
                root: self,
                schema,
                bound: BTreeSet::new(),
                what,
                found: Vec::new(),
            };
            references.visit_body(&block.body);
            found.extend(references.found);
        }
        let text: String = self.blocks.iter().map(|(_, block)| block.body.to_string()).collect();
        for variable in self.variables().keys() {
            if !mentions(&text, &format!("var.{variable}")) {
                found.push(format!("variable {variable} is used nowhere"));
            }
        }
        found
    }

    fn locals(&self) -> BTreeSet<String> {
        self.all("locals")
            .flat_map(|block| block.body.attributes().map(|one| one.key.as_str().to_owned()))
            .collect()
    }

    fn has(&self, kind: &str, of: &str, name: &str) -> bool {
        self.all(kind)
            .any(|block| label(block, 0) == of && label(block, 1) == name)
    }
}

fn mentions(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let after = text[at + name.len()..].chars().next();
        !after.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    })
}

pub fn label(block: &Block, at: usize) -> String {
    block
        .labels
        .get(at)
        .map(|label| label.as_str().to_owned())
        .unwrap_or_default()
}

pub fn titled(block: &Block) -> String {
    let labels: Vec<String> = block.labels.iter().map(|label| label.as_str().to_owned()).collect();
    format!("{} {}", block.ident.as_str(), labels.join("."))
        .trim()
        .to_owned()
}

/// An attribute that is written out: text, number, truth, list of texts.
pub fn plain(body: &Body, name: &str) -> Option<Value> {
    fn value(expression: &Expression) -> Option<Value> {
        match expression {
            Expression::String(text) => Some(text.as_str().into()),
            Expression::Bool(truth) => Some((*truth.value()).into()),
            Expression::Number(number) => number.value().as_i64().map(Value::from),
            Expression::Array(all) => all.iter().map(value).collect::<Option<Vec<Value>>>().map(Value::from),
            _ => None,
        }
    }
    value(&body.get_attribute(name)?.value)
}

/// As it is written.
pub fn written(body: &Body, name: &str) -> String {
    body.get_attribute(name)
        .map(|attribute| attribute.value.to_string().trim().to_owned())
        .unwrap_or_default()
}

fn fits(body: &Body, known: &Value, what: &str, is_top: bool, found: &mut Vec<String>) {
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    for attribute in body.attributes() {
        let name = attribute.key.as_str();
        there.insert(name.to_owned(), 1);
        if is_top && META.contains(&name) {
            continue;
        }
        match &known[name] {
            Value::String(how) if how != "c" => {}
            Value::String(_) => found.push(format!("{what}: {name} is given back, and cannot be set")),
            Value::Array(_) => found.push(format!("{what}: {name} is a block")),
            _ => found.push(format!("{what}: no such attribute: {name}")),
        }
    }
    for block in body.blocks() {
        let is_dynamic = block.ident.as_str() == "dynamic";
        let name = if is_dynamic {
            label(block, 0)
        } else {
            block.ident.as_str().to_owned()
        };
        if is_top && ["lifecycle", "timeouts", "provisioner"].contains(&name.as_str()) && known[&name].is_null() {
            continue;
        }
        let Some(inner) = known[&name].get(1).filter(|_| known[&name][0] != "c") else {
            found.push(format!("{what}: no such block: {name}"));
            continue;
        };
        *there.entry(name.clone()).or_default() += 1;
        let place = format!("{what}: {name}");
        if !is_dynamic {
            fits(&block.body, inner, &place, false, found);
            continue;
        }
        match block.body.blocks().find(|block| block.ident.as_str() == "content") {
            Some(content) => fits(&content.body, inner, &place, false, found),
            None => found.push(format!("{place}: a dynamic block without content")),
        }
    }
    for (name, how) in known.as_object().into_iter().flatten() {
        let times = there.get(name).copied().unwrap_or(0);
        let mark = how.as_str().or_else(|| how[0].as_str()).unwrap_or_default();
        if times == 0 && ["r", "+", "1+"].contains(&mark) {
            found.push(format!("{what}: {name} is missing"));
        }
        if times > 1 && mark.starts_with('1') {
            found.push(format!("{what}: {name} stands {times} times, and may once"));
        }
    }
}

struct References<'a> {
    root: &'a Root,
    schema: &'a Value,
    /// Names that a `for` or a dynamic block binds.
    bound: BTreeSet<String>,
    what: String,
    found: Vec<String>,
}

impl References<'_> {
    /// `first.second.third`, as far as it is names; indices and splats are left out.
    fn check(&mut self, names: &[String]) {
        let name = |at: usize| names.get(at).map(String::as_str).unwrap_or_default();
        let (first, second, third) = (name(0), name(1), name(2));
        let holds = match first {
            "var" => self.root.variables().contains_key(second),
            "local" => self.root.locals().contains(second),
            "path" => ["module", "root", "cwd"].contains(&second),
            "each" => ["key", "value"].contains(&second),
            "count" => second == "index",
            "self" | "terraform" => true,
            "data" => self.root.has("data", second, third) && self.gives("data", second, name(3)),
            _ if self.bound.contains(first) => true,
            _ if first.contains('_') => {
                self.root.has("resource", first, second) && self.gives("resource", first, third)
            }
            _ => false,
        };
        if !holds {
            self.found
                .push(format!("{}: {} leads nowhere", self.what, names.join(".")));
        }
    }

    fn gives(&self, kind: &str, of: &str, attribute: &str) -> bool {
        attribute.is_empty() || attribute == "id" || !self.schema[kind][of][attribute].is_null()
    }
}

impl Visit for References<'_> {
    fn visit_block(&mut self, block: &Block) {
        // What these hold are words of the language, not references.
        if ["lifecycle", "terraform", "required_providers"].contains(&block.ident.as_str()) {
            return;
        }
        let bound = self.bound.clone();
        if block.ident.as_str() == "dynamic" {
            self.bound.insert(label(block, 0));
        }
        visit::visit_block(self, block);
        self.bound = bound;
    }

    fn visit_structure(&mut self, structure: &Structure) {
        match structure {
            // `type = list(string)`, `type = object({ … })`.
            Structure::Attribute(attribute) if attribute.key.as_str() == "type" && self.what.contains("variable ") => {}
            structure => visit::visit_structure(self, structure),
        }
    }

    fn visit_object_key(&mut self, _: &hcl_edit::expr::ObjectKey) {}

    fn visit_for_expr(&mut self, expression: &ForExpr) {
        let bound = self.bound.clone();
        visit::visit_expr(self, &expression.intro.collection_expr);
        let names = expression.intro.key_var.iter().chain([&expression.intro.value_var]);
        self.bound.extend(names.map(|name| name.as_str().to_owned()));
        visit::visit_for_expr(self, expression);
        self.bound = bound;
    }

    fn visit_traversal(&mut self, traversal: &Traversal) {
        let mut names = Vec::new();
        match &traversal.expr {
            Expression::Variable(first) => names.push(first.as_str().to_owned()),
            other => visit::visit_expr(self, other),
        }
        for operator in &traversal.operators {
            match operator.value() {
                TraversalOperator::GetAttr(name) if !names.is_empty() => names.push(name.as_str().to_owned()),
                TraversalOperator::Index(index) => self.visit_expr(index),
                _ => {}
            }
        }
        if !names.is_empty() {
            self.check(&names);
        }
    }

    fn visit_expr(&mut self, expression: &Expression) {
        match expression {
            Expression::Variable(name) if !self.bound.contains(name.as_str()) => {
                self.found
                    .push(format!("{}: {} leads nowhere", self.what, name.as_str()));
            }
            Expression::Variable(_) => {}
            other => visit::visit_expr(self, other),
        }
    }
}
