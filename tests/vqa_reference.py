"""The official VQA v2 accuracy a second time, for `test_vqa_parity.py` only.

Written from the page visualqa.org/evaluation.html and from what PythonEvaluationTools/vqaEvaluation/vqaEval.py of
GT-Vision-Lab/VQA does at a013f0043c1e (its master), under Python 3; not from `vlax.evaluation.vqa`, which it is there to
check. Where page and script disagree the script wins, since published scores are the script's:

- nothing is normalised when the ten answers are one and the same string (page: always);
- one comma between two digits anywhere makes *every* punctuation mark vanish; otherwise a mark vanishes where it stands
  next to a space at least once, and becomes a space where it never does (page: only the comma is special);
- a period goes unless a digit follows it, so ".5" and "a.5" keep theirs and "5." loses it; only the first 32 loose periods go;
- "none" counts as a number word; apostrophe, colon, period and everything outside ASCII are no punctuation marks.

Older revisions normalise the prediction always and only the punctuation of the answers; scores of them differ.
"""

import functools

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
DIGITS = {"none": "0"} | {word: str(value) for value, word in enumerate(NUMBER_WORDS)}
ARTICLES = {"a", "an", "the"}
# The script hands `re.UNICODE`, whose value is 32, to the argument of `sub` that limits the number of replacements.
LOOSE_PERIODS_REMOVED = 32

# Each contraction that the script can restore. Its table holds every spelling with exactly one apostrophe missing. Left out:
# "I'm", "I've", "I'd've", looked up after lower-casing and so never found, and "let's", "she's", mapped to themselves.
LISTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
    how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
    oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd
    where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all
    y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = LISTED.split()
# One entry of the script runs the wrong way round.
RESTORED = {"somebody'd": "somebodyd"} | {
    word[:i] + word[i + 1 :]: word for word in CONTRACTIONS for i, letter in enumerate(word) if letter == "'"
}


def official_accuracy(humans: list[str], prediction: str) -> float:
    """Accuracy in 0..1 of one prediction against the ten human answers.

        official_accuracy(["two"] * 3 + ["3"] * 7, "2.") == 0.9

    Each human is left out once; the prediction earns min(1, matches among the other nine / 3); the mean of the ten counts.
    Summed in thirds, so that the only rounding is that of the last division.
    """
    humans, prediction = [stripped(text) for text in humans], stripped(prediction)
    if len(set(humans)) > 1:
        humans, prediction = [normalise(text) for text in humans], normalise(prediction)
    matches = [human == prediction for human in humans]
    thirds = sum(min(3, sum(matches) - left_out) for left_out in matches)
    return thirds / (3 * len(humans))


def stripped(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@functools.cache
def normalise(text: str) -> str:
    """The processing of one answer: punctuation, periods, case, number words, articles, contractions, in this order.

    normalise("The 1,000-year  egg!") == "1000year egg"
    normalise("Two well-known men dont.") == "2 well known men don't"
    """
    words = without_loose_periods(without_punctuation(text)).lower().split()
    digits = [DIGITS.get(word, word) for word in words]
    return " ".join(RESTORED.get(word, word) for word in digits if word not in ARTICLES)


def without_punctuation(text: str) -> str:
    thousands = any(
        mark == "," and a.isdecimal() and b.isdecimal() for a, mark, b in zip(text, text[1:], text[2:], strict=False)
    )
    fate = {mark: "" if thousands or mark + " " in text or " " + mark in text else " " for mark in PUNCTUATION}
    return text.translate(str.maketrans(fate))


def without_loose_periods(text: str) -> str:
    kept, *after_periods = text.split(".")
    removed = 0
    for piece in after_periods:
        if piece[:1].isdecimal() or removed == LOOSE_PERIODS_REMOVED:
            kept += "."
        else:
            removed += 1
        kept += piece
    return kept
