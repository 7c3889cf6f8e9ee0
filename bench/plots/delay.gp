load "bench/plots/style.gp"
set title "What others wait for while one process reads cold, one scheduler"
set ylabel "worst delay, milliseconds"
set logscale y
set yrange [0.01:*]
set format y "%'g"
set grid ytics linecolor "#b0808080"
set style data histograms
set style fill solid border 2
set arrow from graph 0, first 2 to graph 1, first 2 nohead dashtype 2 linecolor "#d9534f" front
set label "2 ms" at graph 0.99, first 2.4 right textcolor "#d9534f"
plot for [column=2:*] data using column:xtic(1) title columnheader(column)
