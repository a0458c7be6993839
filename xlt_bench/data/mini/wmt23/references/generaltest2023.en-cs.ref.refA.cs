Moje matka pracuje ve škole u řeky.
Pes spí pod kuchyňským stolem.
Dnes ráno jsme koupili čerstvý chléb a mléko.
Zítra bude pršet, tak si vezmi deštník.
Vlak do města odjíždí za deset minut.
Zlomil si nohu, když hrál fotbal.
Její dědeček pěstuje na zahradě rajčata.
Děti zpívají písničku o měsíci.
Včera jsem v autobuse ztratil klíče.
Tahle polévka potřebuje trochu víc soli.
Knihovna je v neděli zavřená.
Na střeše sedí dva červení ptáci.
Lékař mi řekl, abych pil více vody.
Čte dlouhý dopis od své kamarádky.
Starý most je pro nákladní auta příliš úzký.
Můj otec natřel vchodové dveře na modro.
Ve vesnici není v noci elektřina.
Žáci se učí počítat do sta.
Velká loď přivezla do přístavu rýži.
Cena zlata letos opět vzrostla.
