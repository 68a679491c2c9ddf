//! The language: minijinja's parser, and what is checked before anything is evaluated.
//!
//! Only the parser is minijinja's. Its engine offers no hook for operators, folds constants while compiling and bounds
//! no memory, so the tree is evaluated in [`super::evaluate`].

use minijinja::machinery::ast::{CallArg, Expr};
use minijinja::machinery::{Token, parse_expr, tokenize};
use minijinja::value::ValueKind;

use super::MAX_EXPRESSION_BYTES;
use super::data::Data;
use super::evaluate::{TESTS, VALUE_TESTS};
use super::filters::{self, Filter};
use super::numbers::Number;
use super::template::clip;

/// How many operators, dots, brackets and filters an expression may hold. It bounds how deep the tree is, and with it
/// the stack that parsing, evaluating and dropping it take.
const MAX_OPERATORS: usize = 250;
/// How much of an expression an error repeats, in characters.
const MAX_QUOTED: usize = 200;

/// Parses an expression and checks it: filters, functions and tests exist and take the arguments they are given.
pub(super) fn parse(source: &str) -> Result<Expr<'_>, String> {
    if source.len() > MAX_EXPRESSION_BYTES {
        return Err(format!("an expression may have at most {MAX_EXPRESSION_BYTES} bytes"));
    }
    if source.trim().is_empty() {
        return Err("`{{ }}` is empty; name a value, such as `{{ user.name }}`".to_owned());
    }
    let mut operators = 0;
    for token in tokenize(source, true, Default::default()) {
        let (token, _) = token.map_err(|error| malformed(source, &error))?;
        operators += usize::from(nests(&token));
        if operators > MAX_OPERATORS {
            return Err(format!(
                "an expression may hold at most {MAX_OPERATORS} operators, dots, brackets and filters; split it"
            ));
        }
    }
    let expression = parse_expr(source).map_err(|error| malformed(source, &error))?;
    check(&expression).map_err(|reason| unusable(source, &reason))?;
    Ok(expression)
}

/// Says of an expression why it can't be evaluated.
pub(super) fn unusable(source: &str, reason: &str) -> String {
    format!("`{}` can't be used: {reason}", quoted(source))
}

pub(super) fn quoted(source: &str) -> String {
    clip(source.trim(), MAX_QUOTED)
}

fn malformed(source: &str, error: &minijinja::Error) -> String {
    unusable(source, &error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

/// Whether a token can make the tree deeper.
fn nests(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => matches!(*word, "if" | "else" | "not" | "and" | "or" | "in" | "is"),
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::FloorDiv | Token::Pow | Token::Mod => true,
        Token::Dot | Token::Tilde | Token::Pipe | Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => true,
        Token::Eq | Token::Ne | Token::Gt | Token::Gte | Token::Lt | Token::Lte => true,
        _ => false,
    }
}

/// The parts of an expression, one level down.
pub(super) fn parts<'e, 'a>(expression: &'e Expr<'a>) -> Vec<&'e Expr<'a>> {
    fn of_arguments<'e, 'a>(arguments: &'e [CallArg<'a>]) -> impl Iterator<Item = &'e Expr<'a>> {
        arguments.iter().map(|argument| match argument {
            CallArg::Pos(part) | CallArg::Kwarg(_, part) | CallArg::PosSplat(part) | CallArg::KwargSplat(part) => part,
        })
    }
    match expression {
        Expr::Var(_) | Expr::Const(_) => Vec::new(),
        Expr::Slice(slice) => {
            let bounds = [&slice.start, &slice.stop, &slice.step];
            std::iter::once(&slice.expr).chain(bounds.into_iter().flatten()).collect()
        }
        Expr::UnaryOp(operation) => vec![&operation.expr],
        Expr::BinOp(operation) => vec![&operation.left, &operation.right],
        Expr::Compare(chain) => std::iter::once(&chain.expr).chain(chain.ops.iter().map(|step| &step.expr)).collect(),
        Expr::IfExpr(choice) => [&choice.test_expr, &choice.true_expr].into_iter().chain(&choice.false_expr).collect(),
        Expr::Filter(filter) => filter.expr.iter().chain(of_arguments(&filter.args)).collect(),
        Expr::Test(test) => std::iter::once(&test.expr).chain(of_arguments(&test.args)).collect(),
        Expr::GetAttr(access) => vec![&access.expr],
        Expr::GetItem(access) => vec![&access.expr, &access.subscript_expr],
        Expr::Call(call) => {
            let called = (!matches!(call.expr, Expr::Var(_))).then_some(&call.expr);
            called.into_iter().chain(of_arguments(&call.args)).collect()
        }
        Expr::List(list) => list.items.iter().collect(),
        Expr::Tuple(tuple) => tuple.items.iter().collect(),
        Expr::Map(map) => map.keys.iter().chain(&map.values).collect(),
    }
}

/// The constant that an expression is; none where it is none, or one that JSON has no value for.
pub(super) fn constant(expression: &Expr<'_>) -> Option<Data> {
    let Expr::Const(constant) = expression else { return None };
    let value = &constant.value;
    match value.kind() {
        ValueKind::None => Some(Data::NULL),
        ValueKind::Bool => Some(Data::from(value.is_true())),
        ValueKind::String => value.as_str().map(Data::text),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Data::integer),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(Data::float),
        _ => None,
    }
}

fn check(expression: &Expr<'_>) -> Result<(), String> {
    match expression {
        Expr::Filter(used) => {
            if used.expr.is_none() {
                return Err(format!("the filter `{}` has no value to work on", used.name));
            }
            check_filter(used.name, &used.args, 0)?;
        }
        Expr::Call(call) => match &call.expr {
            Expr::Var(function) => check_filter(function.id, &call.args, 1)?,
            Expr::GetAttr(method) if filters::find(method.name).is_some() => {
                return Err(format!("values have no methods; write `value | {0}` for `value.{0}()`", method.name));
            }
            _ => return Err("only functions can be called, such as `jmespath(value, \"query\")`".to_owned()),
        },
        Expr::Test(test) => {
            let needed = if TESTS.contains(&test.name) {
                0
            } else if VALUE_TESTS.contains(&test.name) {
                1
            } else {
                let names = [&TESTS[..], &VALUE_TESTS[..]].concat().join(", ");
                return Err(format!("there is no test `{}`; there are: {names}", test.name));
            };
            if test.args.len() != needed || !test.args.iter().all(|argument| matches!(argument, CallArg::Pos(_))) {
                return Err(format!("the test `{}` takes {needed} values", test.name));
            }
        }
        Expr::Const(_) if constant(expression).is_none() => return Err("a number is too large".to_owned()),
        _ => {}
    }
    parts(expression).into_iter().try_for_each(check)
}

/// Checks what a filter is given; called as a function it takes its value as the first argument.
fn check_filter(name: &str, arguments: &[CallArg<'_>], values: usize) -> Result<(), String> {
    let Some(filter) = filters::find(name) else {
        let what = if values == 0 { "filter" } else { "function" };
        return Err(format!("there is no {what} `{name}`; there are: {}", filters::names()));
    };
    let mut position = 0;
    let mut given = vec![false; filter.parameters.len()];
    for argument in arguments {
        let index = match argument {
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => return Err("`*` can't be used on arguments".to_owned()),
            CallArg::Pos(_) => {
                position += 1;
                if position <= values {
                    continue;
                }
                position - values - 1
            }
            CallArg::Kwarg(parameter, _) => {
                let index = filter.parameters.iter().position(|known| known == parameter);
                index.ok_or_else(|| format!("`{name}` takes no `{parameter}`; {}", takes(filter)))?
            }
        };
        let slot = given.get_mut(index).ok_or_else(|| format!("`{name}` is given too much; {}", takes(filter)))?;
        if std::mem::replace(slot, true) {
            return Err(format!("`{name}` is given `{}` twice", filter.parameters[index]));
        }
        if let CallArg::Pos(value) | CallArg::Kwarg(_, value) = argument
            && let Some(value) = constant(value)
        {
            filters::check_argument(filter.parameters[index], &value)?;
        }
    }
    if position < values {
        return Err(format!("`{name}` needs a value to work on"));
    }
    match filter.parameters.iter().zip(given).take(filter.required).find(|(_, given)| !given) {
        Some((missing, _)) => Err(format!("`{name}` needs `{missing}`; {}", takes(filter))),
        None => Ok(()),
    }
}

fn takes(filter: &Filter) -> String {
    match filter.parameters {
        [] => "it takes nothing more".to_owned(),
        parameters => format!("it takes {}", parameters.join(", ")),
    }
}

/// The path that an expression names, as far as it is written out: `steps["a"].output[0]` is `steps`, `a`, `output`,
/// `0`. None where it is no path.
pub(super) fn path(expression: &Expr<'_>) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut rest = expression;
    loop {
        match rest {
            Expr::Var(name) => {
                path.push(name.id.to_owned());
                path.reverse();
                return Some(path);
            }
            Expr::GetAttr(access) => {
                path.push(access.name.to_owned());
                rest = &access.expr;
            }
            Expr::GetItem(access) => {
                match constant(&access.subscript_expr) {
                    Some(key) => path.push(match (key.as_text(), Number::strictly_of(&key)) {
                        (Some(name), _) => name.to_owned(),
                        (None, Some(Number::Int(index))) => index.to_string(),
                        (None, _) => return None,
                    }),
                    // What comes behind can't be known.
                    None => path.clear(),
                }
                rest = &access.expr;
            }
            _ => return None,
        }
    }
}

/// Every path that an expression names, longest only.
pub(super) fn paths(expression: &Expr<'_>, found: &mut Vec<Vec<String>>) {
    let Some(named) = path(expression) else {
        return parts(expression).into_iter().for_each(|part| paths(part, found));
    };
    found.push(named);
    let mut rest = expression;
    loop {
        rest = match rest {
            Expr::GetAttr(access) => &access.expr,
            Expr::GetItem(access) => {
                paths(&access.subscript_expr, found);
                &access.expr
            }
            _ => return,
        };
    }
}

/// An expression as an error names it: a path as it is written; none of anything else.
pub(super) fn written(expression: &Expr<'_>) -> Option<String> {
    match expression {
        Expr::Var(name) => Some(name.id.to_owned()),
        Expr::GetAttr(access) => Some(format!("{}.{}", written(&access.expr)?, access.name)),
        Expr::GetItem(access) => {
            let key = match &access.subscript_expr {
                key @ Expr::Const(_) => {
                    let mut text = String::new();
                    constant(key)?.write_json(&mut text).ok()?;
                    text
                }
                key => written(key)?,
            };
            Some(format!("{}[{key}]", written(&access.expr)?))
        }
        _ => None,
    }
}
