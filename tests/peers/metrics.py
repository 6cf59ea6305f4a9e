"""`mbuyu score` against sacrebleu, scikit-learn, jiwer, seqeval and scipy.

The same predictions, random and nasty (nothing said, ties, classes that are never right or never said,
odd white space, scripts of the world, several references), go to both.

    metrics.py MBUYU
"""

import json
import math
import random
import re
import string
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import jiwer
import numpy as np
import scipy.stats
import sklearn.metrics as sk
import seqeval.metrics as se
from sacrebleu.metrics import BLEU, CHRF

warnings.filterwarnings("ignore")
program = sys.argv[1]
folder = Path(tempfile.mkdtemp())
compared = 0
wrong = []


def score(rows, *keys):
    path = folder / "predictions.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    run = subprocess.run([program, "score", str(path), *keys], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"mbuyu score {' '.join(keys)}: {run.stderr}")
    return json.loads(run.stdout)


def same(what, ours, theirs, relative=1e-9):
    global compared
    compared += 1
    theirs = float(theirs)
    if math.isnan(theirs):
        ok = ours is None
    else:
        ok = ours is not None and abs(ours - theirs) <= relative * max(abs(theirs), 1e-3)
    if not ok:
        wrong.append(f"{what}: {ours}, not {theirs}")


# --- texts

words = (
    "habari ya asubuhi watoto wanacheza mpira uwanjani shule mwalimu the a an of Fish, chips. "
    "don't 3.14 1,000 (hi) [x] \"quoted\" -- - a-b 10-12 U.S. e-mail: http://x.y/z?q=1&r=2 &amp; "
    "&lt;b&gt; <skipped> ' '' `` … — « » “q” $5 50% A+ C++ x=y a_b ~ ^ | \\ / @user #tag "
    "ሰላም ለዓለም مرحبا بالعالم، كيف 你好，世界。 这是 北京 สวัสดี 😀👍🏽 e\u0301a n\u0303 ß İstanbul ΣΟΦΟΣ ΟΔΟΣ "
    "½ Ⅷ ٣٤ ₤5 © ™ ٪ ‰ ¿qué? ¡sí! 日本語 かな カナ ｶﾅ ＡＢＣ \U00020000 \U0002f800 ⺀ 〇"
).split()
gaps = [" "] * 30 + ["  ", "\t", "\u00a0", "\u2003", " \n", "\n", "\x1c", "\u3000", "-\n", "\r\n", "\u200b"]


def text(rng, longest, some=words):
    n = rng.choice([0, 1, 1, 2, 3, rng.randint(0, longest)])
    out = "".join(rng.choice(some) + rng.choice(gaps) for _ in range(n))
    return rng.choice(["", "", " ", "\t"]) + (out if rng.random() < 0.2 else out.strip())


def spoiled(rng, right):
    parts = re.split(r"(\s+)", right)
    for _ in range(rng.randint(0, 3)):
        if not parts:
            break
        at = rng.randrange(len(parts))
        change = rng.random()
        if change < 0.4:
            parts[at] = rng.choice(words)
        elif change < 0.7:
            del parts[at]
        else:
            parts.insert(at, rng.choice(words) + " ")
    return "".join(parts)


def corpus(seed, n, references, longest=25):
    rng = random.Random(seed)
    some = rng.sample(words, rng.choice([4, 12, len(words)]))
    rows = []
    for _ in range(n):
        right = [text(rng, longest, some) for _ in range(references)]
        said = spoiled(rng, right[0]) if rng.random() < 0.8 else text(rng, longest, some)
        rows.append({"prediction": said, "reference": right if references > 1 else right[0]})
    return rows


def sides(rows):
    said = [r["prediction"] for r in rows]
    right = [r["reference"] if isinstance(r["reference"], list) else [r["reference"]] for r in rows]
    return said, [list(r) for r in zip(*right)]


def translation(rows, what):
    said, right = sides(rows)
    for tokenize in ("13a", "intl", "zh", "char", "none"):
        for lower in (False, True):
            ours = score(rows, "metric=bleu,chrf,chrf++", f"tokenize={tokenize}", f"lowercase={str(lower).lower()}")
            bleu = BLEU(tokenize=tokenize, lowercase=lower, force=True).corpus_score(said, right)
            same(f"{what} bleu {tokenize} {lower}", ours["bleu"], bleu.score)
            details = ours["details"]["bleu"]
            for k in range(4):
                same(f"{what} bleu {tokenize} precision {k}", details[f"precision_{k + 1}"], bleu.precisions[k])
            same(f"{what} bleu {tokenize} brevity", details["brevity_penalty"], bleu.bp)
            same(f"{what} bleu {tokenize} length", details["said_length"], bleu.sys_len)
            same(f"{what} bleu {tokenize} reference", details["reference_length"], bleu.ref_len)
    for lower in (False, True):
        ours = score(rows, "metric=chrf,chrf++", f"lowercase={str(lower).lower()}")
        same(f"{what} chrf", ours["chrf"], CHRF(lowercase=lower).corpus_score(said, right).score)
        same(f"{what} chrf++", ours["chrf++"], CHRF(word_order=2, lowercase=lower).corpus_score(said, right).score)


def errors(rows, what):
    said, right = sides(rows)
    ours = score(rows, "metric=wer,cer")
    for name, theirs in (
        ("wer", jiwer.process_words(right[0], said)),
        ("cer", jiwer.process_characters(right[0], said)),
    ):
        same(f"{what} {name}", ours[name], getattr(theirs, name))
        for count in ("hits", "substitutions", "deletions", "insertions"):
            same(f"{what} {name} {count}", ours["details"][name][count], getattr(theirs, count), 0)


# SQuAD's rules as its paper and its second version's script state them.
def normal(answer):
    answer = "".join(c for c in answer.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", answer).split()


def squad_f1(answer, right):
    a, b = normal(answer), normal(right)
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def answers(rows, what):
    ours = score(rows, "metric=exact_match,f1")
    said, right = sides(rows)
    right = list(zip(*right))
    exact = [max(float(normal(s) == normal(r)) for r in rs) for s, rs in zip(said, right)]
    f1 = [max(squad_f1(s, r) for r in rs) for s, rs in zip(said, right)]
    same(f"{what} exact match", ours["exact_match"], 100 * np.mean(exact))
    same(f"{what} f1", ours["f1"], 100 * np.mean(f1))


# ROUGE's rules as its paper and the rouge-score package state them.
def rouge(kind, answer, right):
    a, b = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, right))
    if kind == "rougeL":
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        common, sizes = int(table[-1, -1]), len(a) + len(b)
    else:
        n = int(kind[-1])
        a, b = (Counter(zip(*(words[k:] for k in range(n)))) for words in (a, b))
        common, sizes = (a & b).total(), a.total() + b.total()
    return 2 * common / sizes if common else 0.0


def summaries(rows, what):
    said, right = sides(rows)
    ours = score(rows, "metric=rouge1,rouge2,rougeL")
    for kind in ("rouge1", "rouge2", "rougeL"):
        best = [max(rouge(kind, s, r) for r in rs) for s, rs in zip(said, zip(*right))]
        same(f"{what} {kind}", ours[kind], np.mean(best))


for seed in range(12):
    references = [1, 1, 2, 3][seed % 4]
    rows = corpus(seed, [1, 2, 10, 200][seed // 3], references)
    translation(rows, f"corpus {seed}")
    answers(rows, f"corpus {seed}")
    summaries(rows, f"corpus {seed}")
    if references == 1:
        errors(rows, f"corpus {seed}")
nothing = [{"prediction": "", "reference": "x"}, {"prediction": " ", "reference": ""}]
translation(nothing, "nothing said")
answers(nothing, "nothing said")
errors(nothing, "nothing said")
errors([{"prediction": "a b", "reference": ""}], "nothing to say")
articles = ["The a, an THE", "a", "", "the-a cat", "a1 an_ _the", "Anthem theA", "é a é", "a\u0301 b", "the.end a.b"]
answers([{"prediction": x, "reference": y} for x in articles for y in articles], "articles")
# ties between alignments, and sequences so long that they are cut
rng = random.Random(5)
errors([{"prediction": " ".join(rng.choices("abc", k=rng.randint(0, 40))), "reference": " ".join(rng.choices("abc", k=rng.randint(0, 40)))} for _ in range(300)], "three letters")
errors([{"prediction": "".join(rng.choices("abcd ", k=n)), "reference": "".join(rng.choices("abcd ", k=m))} for n, m in ((5000, 4000), (3000, 6000), (300, 9000))], "long texts")

# translations by language
rows = corpus(8, 90, 1)
for i, r in enumerate(rows):
    r["group"] = ("sw", "en", "象")[i % 7 % 3]
ours = score(rows, "metric=bleu,chrf,wer")["groups"]
for group in ours:
    said, right = sides([r for r in rows if r["group"] == group])
    same(f"bleu of {group}", ours[group]["bleu"], BLEU(force=True).corpus_score(said, right).score)
    same(f"chrf of {group}", ours[group]["chrf"], CHRF().corpus_score(said, right).score)
same("groups of translations", len(ours), 3)

# text files, one segment a line
rows = corpus(3, 50, 2)
for r in rows:
    r["prediction"] = " ".join(r["prediction"].split())
    r["reference"] = [" ".join(x.split()) for x in r["reference"]]
said, right = sides(rows)
for name, lines in (("said", said), ("one", right[0]), ("two", right[1])):
    (folder / f"{name}.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
run = subprocess.run([program, "score", f"{folder}/said.txt", f"reference={folder}/one.txt,{folder}/two.txt", "metric=bleu"], capture_output=True, text=True, check=True)
same("text files", json.loads(run.stdout)["bleu"], BLEU().corpus_score(said, right).score)

# --- classes


def class_rows(seed, n, names, numbers):
    rng = random.Random(seed)
    k = len(names)
    rows = []
    for _ in range(n):
        p = np.array([rng.choice([0.0, 0.25, rng.random()]) + 1e-3 for _ in range(k)])
        p /= p.sum()
        label = rng.randrange(k) if rng.random() < 0.5 else int(p.argmax())
        said = int(p.argmax())
        rows.append({
            "prediction": said if numbers else names[said],
            "label": label if numbers else names[label],
            "probabilities": p.tolist() if numbers else dict(zip(names, p.tolist())),
            "group": rng.choice(["sw", "en"]),
        })
    return rows


def classes(rows, names, what):
    ours = score(rows)
    y, p = [r["label"] for r in rows], [r["prediction"] for r in rows]
    same(f"{what} accuracy", ours["accuracy"], sk.accuracy_score(y, p))
    for average, suffix in (("macro", ""), ("micro", "_micro"), ("weighted", "_weighted")):
        same(f"{what} f1{suffix}", ours[f"f1{suffix}"], sk.f1_score(y, p, average=average, zero_division=0))
    same(f"{what} precision", ours["precision"], sk.precision_score(y, p, average="macro", zero_division=0))
    same(f"{what} recall", ours["recall"], sk.recall_score(y, p, average="macro", zero_division=0))
    same(f"{what} matthews", ours["matthews_correlation"], sk.matthews_corrcoef(y, p))
    order = sorted(set(y) | set(p)) if not isinstance(y[0], str) else sorted(names)
    table = sk.precision_recall_fscore_support(y, p, labels=order, zero_division=0)
    for k, name in enumerate(order):
        for column, field in enumerate(("precision", "recall", "f1", "rows")):
            same(f"{what} {field} of {name}", ours["classes"][str(name)][field], table[column][k])
    if set(order) == set(int(k) if isinstance(y[0], int) else k for k in ours["classes"]):
        theirs = sk.confusion_matrix(y, p, labels=order).tolist()
        same(f"{what} confusion matrix", float(ours["confusion_matrix"] == theirs), 1)
    probabilities = np.array([list(r["probabilities"].values()) if isinstance(r["probabilities"], dict) else r["probabilities"] for r in rows])
    if len(set(y)) == len(names) == 2:
        at = list(names).index(sorted(names)[1])
        same(f"{what} roc_auc", ours["roc_auc"], sk.roc_auc_score([v == (1 if isinstance(v, int) else names[at]) for v in y], probabilities[:, at]))
    elif len(set(y)) == len(names):
        columns = np.argsort(names)
        same(f"{what} roc_auc", ours["roc_auc"], sk.roc_auc_score(y, probabilities[:, columns], multi_class="ovr"))
    for group in {r["group"] for r in rows}:
        some = [r for r in rows if r["group"] == group]
        y, p = [r["label"] for r in some], [r["prediction"] for r in some]
        same(f"{what} rows of {group}", ours["groups"][group]["rows"], len(some))
        same(f"{what} accuracy of {group}", ours["groups"][group]["accuracy"], sk.accuracy_score(y, p))
        same(f"{what} f1 of {group}", ours["groups"][group]["f1"], sk.f1_score(y, p, average="macro", zero_division=0))
        same(f"{what} matthews of {group}", ours["groups"][group]["matthews_correlation"], sk.matthews_corrcoef(y, p))


for seed in range(10):
    k = [2, 3, 7][seed % 3]
    classes(class_rows(seed, [1, 5, 300][seed % 3], list(range(k)), True), list(range(k)), f"numbers {seed}")
    names = ["zebra", "chui", "simba", "nyati", "twiga", "ñandú", "象"][:k]
    classes(class_rows(seed, 200, names, False), names, f"names {seed}")
binary = class_rows(99, 100, [0, 1], True)
same("f1_binary", score(binary, "metric=f1_binary")["f1_binary"], sk.f1_score([r["label"] for r in binary], [r["prediction"] for r in binary]))

# several classes a row
for seed in range(6):
    rng = random.Random(seed)
    k = [2, 4, 9][seed % 3]
    rows, y, p, q = [], [], [], []
    for _ in range([1, 8, 200][seed % 3]):
        label, said = ([int(rng.random() < 0.3) for _ in range(k)] for _ in range(2))
        said = label if rng.random() < 0.4 else said
        share = [rng.choice([0.5, rng.random()]) for _ in range(k)]
        y.append(label)
        p.append(said)
        q.append(share)
        rows.append({"prediction": [i for i in range(k) if said[i]], "label": [i for i in range(k) if label[i]], "probabilities": share})
    y, p = np.array(y), np.array(p)
    ours = score(rows, "metric=accuracy,f1,f1_micro,f1_weighted,precision,recall,roc_auc") if any(r["label"] or r["prediction"] for r in rows) else None
    if ours is None:
        continue
    what = f"sets {seed}"
    same(f"{what} accuracy", ours["accuracy"], sk.accuracy_score(y, p))
    for average, suffix in (("macro", ""), ("micro", "_micro"), ("weighted", "_weighted")):
        same(f"{what} f1{suffix}", ours[f"f1{suffix}"], sk.f1_score(y, p, average=average, zero_division=0))
    same(f"{what} precision", ours["precision"], sk.precision_score(y, p, average="macro", zero_division=0))
    same(f"{what} recall", ours["recall"], sk.recall_score(y, p, average="macro", zero_division=0))
    if all(0 < y[:, i].sum() < len(y) for i in range(k)):
        same(f"{what} roc_auc", ours["roc_auc"], sk.roc_auc_score(y, np.array(q), average="macro"))

# --- numbers
for seed in range(6):
    rng = random.Random(seed)
    n = [2, 5, 200][seed % 3]
    y = [rng.choice([0.0, 1.5, rng.gauss(0, 1)]) for _ in range(n)]
    p = [v + rng.choice([0.0, rng.gauss(0, 1)]) for v in y] if seed < 5 else [1.0] * n
    ours = score([{"prediction": a, "label": b} for a, b in zip(p, y)], "metric=mse,rmse,mae,pearson,spearman")
    same(f"numbers {seed} mse", ours["mse"], sk.mean_squared_error(y, p))
    same(f"numbers {seed} rmse", ours["rmse"], sk.root_mean_squared_error(y, p))
    same(f"numbers {seed} mae", ours["mae"], sk.mean_absolute_error(y, p))
    same(f"numbers {seed} pearson", ours["pearson"], scipy.stats.pearsonr(y, p).statistic if len(set(y)) > 1 else math.nan)
    same(f"numbers {seed} spearman", ours["spearman"], scipy.stats.spearmanr(y, p).statistic)

# --- tags
for seed in range(12):
    rng = random.Random(seed)
    letters = ["BI", "BIES", "I", "BIES"][seed % 4]
    tags = ["O"] * 2 + [f"{a}-{t}" for a in letters for t in ("PER", "LOC", "X-Y")[: 1 + seed % 3]]
    y, p = [], []
    for _ in range([1, 20, 150][seed // 4]):
        label = [rng.choice(tags) for _ in range(rng.choice([1, 2, rng.randint(1, 30)]))]
        y.append(label)
        p.append([t if rng.random() < 0.8 else rng.choice(tags) for t in label])
    ours = score([{"prediction": a, "label": b} for a, b in zip(p, y)])
    what = f"tags {seed}"
    same(f"{what} accuracy", ours["accuracy"], se.accuracy_score(y, p))
    same(f"{what} f1", ours["f1"], se.f1_score(y, p))
    same(f"{what} precision", ours["precision"], se.precision_score(y, p))
    same(f"{what} recall", ours["recall"], se.recall_score(y, p))
    for average in ("macro", "weighted") if ours["classes"] else ():  # seqeval: NaN without entities
        same(f"{what} f1 {average}", ours[f"f1_{average}"], se.f1_score(y, p, average=average))
    report = se.classification_report(y, p, output_dict=True, digits=6) if ours["classes"] else {}
    for name, line in ours["classes"].items():
        for ours_field, field in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("rows", "support")):
            same(f"{what} {field} of {name}", line[ours_field], report[name][field])

# --- candidates
for seed in range(3):
    rng = random.Random(seed)
    k = [3, 8, 30][seed]
    scores = [[rng.random() for _ in range(k)] for _ in range(100)]
    right = [rng.randrange(k) for _ in range(100)]
    ours = score([{"scores": s, "label": r} for s, r in zip(scores, right)])
    for at in (1, 5, 10):
        if at < k:
            theirs = sk.top_k_accuracy_score(right, scores, k=at, labels=range(k))
            same(f"candidates {seed} accuracy@{at}", ours[f"accuracy@{at}"], theirs)
    relevant = np.zeros((100, k))
    relevant[range(100), right] = 1
    same(f"candidates {seed} mrr", ours["mrr"], sk.label_ranking_average_precision_score(relevant, np.array(scores)))

for line in wrong[:40]:
    print(line)
print(f"{compared} values compared, {len(wrong)} differ")
sys.exit(bool(wrong))
