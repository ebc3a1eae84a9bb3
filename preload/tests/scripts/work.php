<?php
// Arrays, strings, patterns, JSON and objects; the extensions ctype and iconv are shared libraries of
// their own.
fwrite(STDERR, str_contains(file_get_contents('/proc/self/maps'), '[heap]') ? 'break' : 'none');
$count = [];
$words = [];
for ($i = 1; $i <= 60000; $i++) {
    $word = '';
    for ($j = 1; $j <= 1 + $i % 9; $j++) {
        $word .= chr(97 + ($i * $j) % 26);
    }
    $count[$word] = ($count[$word] ?? 0) + 1;
    if ($i % 3) {
        $words[] = str_repeat($word, 1 + $i % 4);
    }
}
ksort($count);
arsort($count);
print_r(array_slice($count, 0, 200));

$text = implode(' ', $words);
$vowels = preg_match_all('/[aeiou]/', $text);
$text = preg_replace_callback('/(\w)(\w+)/', fn($m) => strtoupper($m[1]) . '-' . $m[2], $text);
echo strlen($text), " $vowels ", substr($text, -500), ' ', md5($text), "\n";
echo count(array_filter($words, 'ctype_alpha')), ' ', count(array_unique($words)), "\n";

$tree = [];
for ($i = 0; $i < 20000; $i++) {
    $tree["k$i"] = ['id' => $i, 'list' => range(0, $i % 30), 'name' => "n\u{e4}me $i", 'part' => $i / 7];
}
$json = json_encode($tree, JSON_PRETTY_PRINT);
echo strlen($json), ' ', md5($json), ' ', json_decode($json, true) === $tree ? 'same' : 'differs', "\n";
echo md5(iconv('UTF-8', 'UTF-16LE', json_encode($tree, JSON_UNESCAPED_UNICODE))), "\n";
echo unserialize(serialize($tree)) == $tree ? 'same' : 'differs', "\n";

class Node {
    public ?Node $next = null;
    public ?Node $back = null;
}
for ($i = 0; $i < 100000; $i++) { // circles, which the collector must find
    $a = new Node();
    $b = new Node();
    [$a->next, $b->back] = [$b, $a];
}
echo gc_collect_cycles() >= 0 ? 'collected' : '', "\n";
echo strlen(gzuncompress(gzcompress(str_repeat($json, 2), 6))), "\n";
